"""What an import loads: the ops are for everyone, so they bring torch and the extension and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import smore_ext

LIBRARIES = {"pandas", "scipy", "click", "rich", "yaml", "safetensors", "hypothesis", "pytest", "tqdm"}


def loaded(code: str) -> tuple[set[str], set[str]]:
    """Packages, and modules of this one, that `code` loads beyond what `import torch` loads."""
    program = f"import sys, torch; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()
    return {name.partition(".")[0] for name in modules}, {name for name in modules if name.startswith("smore_ext.")}


@pytest.mark.parametrize("code", ["import smore_ext", "from smore_ext import Graph, backends, ops, reference"])
def test_the_ops_bring_torch_and_the_extension_only(code: str) -> None:
    packages, own = loaded(code)
    assert not packages & LIBRARIES
    above = ("data", "models", "evaluation", "settings", "training", "runs", "testing", "cli", "train")
    assert not [name for name in own if name.split(".")[1] in above]


def test_a_model_brings_no_library_that_reads_files() -> None:
    packages, _ = loaded("from smore_ext import SMORE, Dataset")
    assert not packages & {"pandas", "scipy", "click", "rich", "yaml", "hypothesis", "pytest"}


def test_numpy_is_not_needed_by_the_ops() -> None:
    # With None in its place, an import of it fails.
    packages, _ = loaded("sys.modules['numpy'] = None\nimport smore_ext\ndel sys.modules['numpy']")
    assert "numpy" not in packages


def test_every_public_name_is_there_and_listed() -> None:
    assert set(smore_ext.__all__) <= set(dir(smore_ext))
    for name in smore_ext.__all__:
        assert getattr(smore_ext, name) is not None
    with pytest.raises(AttributeError, match="module 'smore_ext' has no attribute 'nothing'"):
        smore_ext.nothing  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded_on_first_use() -> None:
    tree = ast.parse(Path(smore_ext.__file__).read_text())
    seen: dict[str, set[str]] = {}
    for block in (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)):
        for node in block.body:
            assert isinstance(node, ast.ImportFrom)
            seen.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
    public = {module for module in smore_ext._LAZY if "." not in module}  # of others the names alone
    assert seen.pop("smore_ext") == public
    assert seen == {f"smore_ext.{module}": set(names) for module, names in smore_ext._LAZY.items() if names}
    lazy = {*public, *(name for names in smore_ext._LAZY.values() for name in names)}
    assert lazy <= set(smore_ext.__all__)
