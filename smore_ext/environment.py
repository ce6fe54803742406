"""Versions of what made a result, and how old the process is that makes it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
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


def process_seconds() -> float:
    """Since this process began; where the system does not say (not Linux), since this module was imported."""
    try:
        began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text().split()[0]) - began
    except (OSError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED


def since_last_run() -> float:
    """Since it was asked for last, or the process began."""
    global _asked
    before, _asked = _asked, process_seconds()
    return max(0.0, _asked - before)


_IMPORTED, _asked = time.monotonic(), 0.0
