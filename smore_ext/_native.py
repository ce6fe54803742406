"""Loads the compiled module, which registers ``torch.ops.smore_ext``. No other file loads it."""

import importlib
import importlib.util
import mmap
import re
from types import ModuleType

import torch  # first: the compiled module is linked against torch's libraries

_MODULE = "smore_ext._C"
_REBUILD = "rebuild it in the environment that runs it (pip install -e .)"


def _torch_built_against(path: str) -> str:
    """The torch version stamped into the library file, read without loading it; "unknown" without a stamp."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        stamp = re.search(rb"smore_ext built against torch ([0-9][^\0]*)\0", content)
        return stamp[1].decode() if stamp else "unknown"


def _public(version: str) -> str:
    """A version without its local part: 2.13.0+cpu and 2.13.0 are the same code."""
    return version.partition("+")[0]


def _load() -> ModuleType:
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        raise ImportError(f"{_MODULE} is missing: the extension is not built for this Python; {_REBUILD}")
    built = _torch_built_against(spec.origin)
    versions = f"built against torch {built}, running with torch {torch.__version__}"
    if _public(built) != _public(torch.__version__):
        raise ImportError(f"{_MODULE} does not fit this torch ({versions}); {_REBUILD}")
    try:
        return importlib.import_module(_MODULE)
    except ImportError as error:
        raise ImportError(f"{_MODULE} could not be loaded ({versions}): {error}; {_REBUILD}") from error


_C = _load()


def build_info() -> dict[str, str | None]:
    """How the compiled module was built, and the SIMD level it uses on this processor.

    Keys: ``torch`` (version built against), ``compiler``, ``flags``, ``cuda`` and ``cuda_archs`` (None if no
    CUDA kernels are in), ``simd_built``, ``simd`` (in use), ``threading``. Raises RuntimeError if the
    environment variable SMORE_SIMD names a level that does not exist or that this processor lacks.
    """
    return _C.build_info()
