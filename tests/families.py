"""The rules between the folders of csrc, read from the #include lines of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

SHARED = ("common", "cpu", "cuda")
DEVICES = ("cpu", "cuda")
SUFFIXES = (".h", ".cpp", ".inl", ".cu", ".cuh")
TORCH = re.compile(r"(ATen|c10|torch|caffe2|pybind11)/|Python\.h$")
INCLUDE = re.compile(r'^\s*#\s*(?:include|define\s+SMORE_KERNEL_FILE)\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


class Sources:
    """The files of csrc under a root, by their path in csrc, and what each includes."""

    def __init__(self, root: Path) -> None:
        self.root = root / "csrc"

    @cached_property
    def includes(self) -> dict[str, list[str]]:
        """Files of csrc by their path in it; others as they are written."""
        return {
            path.relative_to(self.root).as_posix(): [ours or other for ours, other in INCLUDE.findall(path.read_text())]
            for path in sorted(self.root.rglob("*"))
            if path.suffix in SUFFIXES
        }

    @cached_property
    def families(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name not in SHARED)

    def closure(self, file: str) -> set[str]:
        """What a file includes, directly or through files of csrc."""
        found: set[str] = set()
        waiting = [file]
        while waiting:
            for included in self.includes.get(waiting.pop(), []):
                if included not in found:
                    found.add(included)
                    waiting.append(included)
        return found

    def place(self, file: str) -> tuple[str, str | None]:
        """(top folder, device): the device is "cpu", "cuda", or None for what devices share."""
        folders = file.split("/")[:-1]
        top = folders[0] if folders else ""
        return top, next((device for device in DEVICES if device in folders), None)

    def breaches(self) -> Iterator[str]:
        """A line for each include that breaks a rule."""
        for file, included in self.includes.items():
            top, device = self.place(file)
            for other in included:
                if other not in self.includes:
                    continue
                its_top, its_device = self.place(other)
                line = f"csrc/{file} includes {other}"
                if its_top in self.families and top in self.families and its_top != top:
                    yield f"{line}: another family"
                elif its_top in self.families and top not in self.families:
                    yield f"{line}: a family, which shared blocks must not know"
                elif top and device is None and its_device is not None:
                    yield f"{line}: a device, which a contract and what devices share must not know"
                elif device is not None and its_device not in (None, device) and not is_host_block(file, other):
                    yield f"{line}: another device"
            if is_kernel(file) and (foreign := sorted(other for other in self.closure(file) if TORCH.match(other))):
                yield f"csrc/{file} includes {foreign[0]}: kernels are free of torch"


def is_host_block(file: str, other: str) -> bool:
    """Bindings of a GPU are code of the host, and may use its shared blocks; kernels are not."""
    return other.startswith("cpu/") and file.endswith(".cpp") and not is_kernel(file)


def is_kernel(file: str) -> bool:
    """Whether a file is to compile without torch: in the C++ tests, and by nvcc alone."""
    name = file.rpartition("/")[2]
    return "_kernel." in name or name.endswith((".cu", ".cuh", ".inl"))
