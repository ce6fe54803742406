"""Versions of what made a result."""

from __future__ import annotations

import platform
from typing import Any

import numpy
import torch

from smore_ext._native import build_info
from smore_ext.version import __version__


def versions() -> dict[str, Any]:
    """Versions of Python, torch, numpy and this package, and how its extension was built."""
    return {
        "smore_ext": __version__,
        "build": build_info(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }
