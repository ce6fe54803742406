"""Families of ops: what may include what, one name for an op everywhere, and no file that does too much."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from families import Sources

from smore_ext import ops
from smore_ext.testing import cases

ROOT = Path(__file__).resolve().parents[1]
SOURCES = Sources(ROOT)
MOST_LINES = 500
FOLDERS = ("csrc", "smore_ext", "tests", "benchmarks", "examples", "tools")
LANGUAGES = (".py", ".h", ".cpp", ".inl", ".cu", ".cuh")


def test_includes_keep_the_rules() -> None:
    assert list(SOURCES.breaches()) == []


@pytest.mark.parametrize(
    "file, line, breach",
    [
        ("one/a.h", '#include "two/b.h"', "csrc/one/a.h includes two/b.h: another family"),
        ("one/cpu/a_cpu.cpp", '#include "two/cpu/c_kernel.h"', "another family"),
        ("one/a.cpp", '#include "cpu/d.h"', "a device, which a contract and what devices share must not know"),
        ("one/a.cpp", '#include "one/cuda/e_kernel.h"', "a device, which a contract"),
        ("common/a.h", '#include "cpu/d.h"', "a device, which a contract"),
        ("common/a.h", '#include "two/b.h"', "a family, which shared blocks must not know"),
        ("cuda/a.cpp", "#include  <two/b.h>", "a family, which shared blocks must not know"),
        ("module.cpp", '# include "one/cuda/e_kernel.h"', "a family, which shared blocks must not know"),
        ("one/cuda/a_kernel.cu", '#include "cpu/d.h"', "another device"),
        ("one/cpu/a_cpu.cpp", '#include "one/cuda/e_kernel.h"', "another device"),
        (
            "one/cpu/a_kernel.h",
            "#include <ATen/core/Tensor.h>",
            "includes ATen/core/Tensor.h: kernels are free of torch",
        ),
        ("one/cpu/a_kernel.inl", '#include "one/f.h"', "csrc/one/cpu/a_kernel.inl includes c10/util/Exception.h"),
        ("one/cuda/a.cuh", "#include <torch/library.h>", "kernels are free of torch"),
        ("one/cpu/a_kernel.cpp", '#define SMORE_KERNEL_FILE "two/cpu/c_kernel.h"', "another family"),
        ("cuda/a.cpp", '#include "cpu/d.h"', None),
        ("one/cuda/a_cuda.cpp", '#include "one/f.h"', None),
        ("module.cpp", '#include "cpu/d.h"', None),
    ],
)
def test_each_rule_is_enforced(file: str, line: str, breach: str | None, tmp_path: Path) -> None:
    others = {"two/b.h": "", "two/cpu/c_kernel.h": "", "cpu/d.h": "", "one/cuda/e_kernel.h": ""}
    others["one/f.h"] = "#include <c10/util/Exception.h>"
    for name, text in (others | {file: f"// A file.\n{line}\n"}).items():
        path = tmp_path / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = list(Sources(tmp_path).breaches())
    if breach is None:
        assert found == []
    else:
        assert len(found) == 1 and breach in found[0]


def module_of(package: ModuleType, op: str) -> str:
    """The module of a package whose __all__ has the op."""
    return getattr(package, op).__module__.rpartition(".")[2]


@pytest.mark.parametrize("op", ops.__all__)
def test_an_op_has_one_name_and_one_family(op: str) -> None:
    """csrc/<family>/<op>.cpp defines it; smore_ext/ops/<family>.py and testing/cases/<family>.py have it."""
    file = op.removesuffix("_")  # an op that works in place is named as in torch
    defined = [path for path in (ROOT / "csrc").glob("*/*.cpp") if f'"{op}(' in path.read_text()]
    assert [path.name for path in defined] == [f"{file}.cpp"]
    family = defined[0].parent.name
    assert module_of(ops, op) == family
    assert {f for f in cases.FAMILIES if any(case.op == op for case in f.CASES)} == {getattr(cases, family)}


def test_other_registered_ops_serve_backward() -> None:
    registered = (name.partition("::") for name in torch._C._dispatch_get_all_op_names())
    names = {name.partition(".")[0] for namespace, _, name in registered if namespace == "smore_ext"}  # no overloads
    assert names >= set(ops.__all__)
    assert [name for name in sorted(names - set(ops.__all__)) if not name.endswith("_backward")] == []


def test_every_family_is_the_same_everywhere() -> None:
    assert SOURCES.families == sorted(family.__name__.rpartition(".")[2] for family in cases.FAMILIES)
    assert {module_of(ops, op) for op in ops.__all__} == set(SOURCES.families)


def test_no_file_is_long() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in LANGUAGES]
    assert len(files) > 200
    long = {str(path.relative_to(ROOT)): count for path in files if (count := lines(path)) > MOST_LINES}
    assert long == {}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())
