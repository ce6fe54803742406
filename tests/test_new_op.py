"""tools/new_op: what it makes compiles, passes the tests of the op table and keeps the rules; bad names are refused."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from families import Sources
from torch.utils import cpp_extension

from smore_ext import _native

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("csrc", "smore_ext", "tests", "tools", "pyproject.toml", ".clang-format")
MOST_FILES = 8
NAME, FAMILY = "row_scale", "sampling"
WARNINGS = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]


def run(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_of_the_tree(to: Path) -> Path:
    left_out = shutil.ignore_patterns("__pycache__", "*.so", ".pytest_cache")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, to / name)
    return to


def new_op(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "tools/new_op", *arguments], cwd=root, capture_output=True, text=True)


@pytest.fixture(scope="module", params=["--differentiable", "plain"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with a new op; no test changes it."""
    root = copy_of_the_tree(tmp_path_factory.mktemp(request.param.strip("-")))
    options = [request.param] if request.param.startswith("-") else []
    done = new_op(root, NAME, "--family", FAMILY, *options)
    assert done.returncode == 0, done.stderr
    return root


def changed(root: Path) -> list[str]:
    """Paths of the files that differ from the tree, or are not there."""
    files = (path for name in COPIED for path in [root / name, *(root / name).rglob("*")] if path.is_file())
    paths = (path.relative_to(root) for path in files if "__pycache__" not in path.parts)
    return sorted(
        str(path)
        for path in paths
        if not (ROOT / path).is_file() or (root / path).read_bytes() != (ROOT / path).read_bytes()
    )


def test_an_op_touches_at_most_eight_files(tree: Path) -> None:
    files = changed(tree)
    assert len(files) <= MOST_FILES
    assert files == [
        f"csrc/{FAMILY}/cpu/{NAME}_kernel.cpp",
        f"csrc/{FAMILY}/cuda/{NAME}_kernel.cu",
        f"csrc/{FAMILY}/{NAME}.cpp",
        f"csrc/{FAMILY}/{NAME}_kernel.h",
        f"smore_ext/ops/{FAMILY}.py",
        "smore_ext/reference.py",
        f"smore_ext/testing/cases/{FAMILY}.py",
        f"tests/cpp/test_cuda_{NAME}.cpp",
    ]
    assert not any("@@" in (tree / file).read_text() or "op_name" in (tree / file).read_text() for file in files)
    assert sum("TODO" in (tree / file).read_text() for file in files) == 3  # where the formula is described


def test_its_files_are_formatted_and_keep_the_rules(tree: Path) -> None:
    files = changed(tree)
    run([sys.executable, "-m", "ruff", "check", "--no-cache", *(f for f in files if f.endswith(".py"))], tree)
    run(
        [sys.executable, "-m", "ruff", "format", "--no-cache", "--check", *(f for f in files if f.endswith(".py"))],
        tree,
    )
    clang_format = shutil.which("clang-format", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert clang_format is not None
    run([clang_format, "--dry-run", "-Werror", *(f for f in files if not f.endswith(".py"))], tree)
    assert list(Sources(tree).breaches()) == []


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))


def test_its_cpp_test_passes(tree: Path, tmp_path: Path) -> None:
    """CPU kernel and CUDA kernel on the emulation, as the CMake build has them."""
    kernels = [f"csrc/{FAMILY}/cpu/{NAME}_kernel.cpp", f"csrc/{FAMILY}/cuda/{NAME}_kernel.cu"]
    others = ["csrc/cpu/simd/level.cpp", "tests/cpp/emulation/cuda_emulation.cpp", f"tests/cpp/test_cuda_{NAME}.cpp"]
    flags = [*WARNINGS, "-O1", "-Icsrc", "-Itests/cpp", "-DSMORE_CUDA_EMULATED", "-pthread"]
    run([*compiler(), *flags, "-xc++", *kernels, *others, "-o", tmp_path / "test"], tree)
    assert "2 passed, 0 failed" in run([tmp_path / "test"], tree)


def test_both_kinds_pass_the_tests_of_the_op_table(tmp_path: Path) -> None:
    """They are compiled into a library of their own, beside the extension that is there."""
    root = copy_of_the_tree(tmp_path)
    kinds = ((NAME, FAMILY, "--differentiable"), ("row_gate", "losses"))
    for name, family, *options in kinds:
        assert new_op(root, name, "--family", family, *options).returncode == 0
    sources = [f"csrc/{family}/{name}.cpp" for name, family, *_ in kinds]
    sources += [f"csrc/{family}/cpu/{name}_kernel.cpp" for name, family, *_ in kinds]
    sources += ["csrc/cpu/run.cpp", "csrc/cpu/host_cache.cpp", "csrc/cpu/simd/level.cpp"]
    flags = [*WARNINGS, "-O1", "-fPIC", "-fvisibility=hidden", "-Icsrc"]
    flags += [f"-isystem{path}" for path in cpp_extension.include_paths()]
    objects = [tmp_path / f"{number}.o" for number in range(len(sources))]

    def compile(source: str, to: Path) -> None:
        run([*compiler(), *flags, "-c", source, "-o", to], root)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile, sources, objects))
    libraries = [*(f"-L{path}" for path in cpp_extension.library_paths()), "-ltorch_cpu", "-lc10"]
    run([*compiler(), "-shared", *objects, *libraries, "-o", tmp_path / "ops.so"], root)
    shutil.copy(_native._C.__file__, root / "smore_ext")
    code = f"""
import sys, pytest, torch
torch.ops.load_library({str(tmp_path / "ops.so")!r})
files = ["tests/test_ops.py", "tests/test_op_errors.py", "tests/test_families.py"]
chosen = "{" or ".join(name for name, *_ in kinds)} or every_op_has_cases"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *files, "-k", chosen]))
"""
    assert " passed" in run([sys.executable, "-c", code], root)


@pytest.mark.parametrize(
    "name, family, message",
    [
        ("RowScale", FAMILY, "NAME must be words in lower case with underscores between them, got 'RowScale'"),
        ("scale_", FAMILY, "NAME must be words in lower case"),
        ("knn", FAMILY, "NAME must be new, got 'knn', which csrc/neighbours/knn."),
        ("propagate", FAMILY, "NAME must be new, got 'propagate', which csrc/sparse/"),
        ("scale", "common", "FAMILY must be one of losses, neighbours, "),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, family: str, message: str, tmp_path: Path) -> None:
    root = copy_of_the_tree(tmp_path)
    done = new_op(root, name, "--family", family)
    assert done.returncode == 1 and done.stderr.startswith(f"new_op: {message}") and changed(root) == []


def test_an_op_is_made_once(tmp_path: Path) -> None:
    root = copy_of_the_tree(tmp_path)
    assert new_op(root, NAME, "--family", FAMILY).returncode == 0
    again = new_op(root, NAME, "--family", "losses")
    assert again.returncode == 1 and f"got '{NAME}', which csrc/{FAMILY}/" in again.stderr
