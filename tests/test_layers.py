"""The order of the layers: imports run downwards only, and nothing outside models/ names a model or its settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import smore_ext
from smore_ext.models import MODELS, Recommender
from smore_ext.runs import folder

PACKAGE = Path(smore_ext.__file__).parent

# From the bottom to the top. What stands in one line may import each other; commands are all that is named nowhere.
LAYERS = [
    {
        "ops",
        "graph",
        "reference",
        "backends",
        "testing",
        "environment",
        "_native",
        "threads",
        "signals",
        "version",
    },  # torch only
    {"registry"},
    {"data"},
    {"models"},
    {"evaluation"},
    {"settings"},
    {"training"},
    {"prepare"},
    {"runs"},
    {"serving"},
    {"experiments", "compat"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
COMMANDS = len(LAYERS)
SIDE_BY_SIDE = {("evaluation", "models")}  # (upper, lower): neither knows the other

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(path: Path) -> str:
    """The layer's part that a file belongs to: the folder or module directly under the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(name: str) -> int:
    return LEVEL.get(name, COMMANDS)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, part) of each import from this package, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports name the package, not a relative place"
            if node.module == "smore_ext":  # a part, or one of the public names
                names = [f"smore_ext.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "smore_ext":
                yield node.lineno, rest.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    own = part(path)
    of_own = COMMANDS if path.name == "__main__.py" else level(own)  # a package's __main__ is a command
    for line, name in imported(ast.parse(path.read_text())):
        where = f"{path.relative_to(PACKAGE)}:{line}: {own} imports {name}"
        assert (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file(), f"{where}, a name of the front page"
        assert level(name) <= of_own, f"{where}, which is above it"
        assert (own, name) not in SIDE_BY_SIDE, f"{where}, which stands beside it"


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, word) of names, attributes, arguments and short texts in the code; docstrings may give examples."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and _has_doc(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.keyword(arg=str(word)):
                yield node.lineno, word
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield from ((node.lineno, word) for word in re.findall(r"\w+", text))


def _has_doc(node: ast.AST) -> bool:
    body = getattr(node, "body", [])
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


STUDIES = PACKAGE / "experiments" / "studies"  # they are about models, and name them
ABOVE_MODELS = [path for path in FILES if level(part(path)) > level("models") and STUDIES not in path.parents]


def test_nothing_above_the_models_names_one() -> None:
    names = set(MODELS) | {cls.config_class.__name__ for cls in MODELS.values()}
    found = [f"{path}:{line}: {word}" for path in ABOVE_MODELS for line, word in words_of(path) if word in names]
    assert not found, found


def test_nothing_above_the_models_names_a_setting_of_one() -> None:
    """What the contract itself has (`backend`) and what the loop decides (`batch_size`) are everyone's words."""
    settings = {f.name for cls in MODELS.values() for f in fields(cls.config_class) if not f.metadata.get("loop")}
    settings -= set(dir(Recommender)) | {"dropout"}  # "dropout" is a word, too: that of the seed's help
    assert {"cl_weight", "knn_k", "cache_dir", "reg_weight", "embedding_dim", "n_ui_layers"} <= settings
    found = [f"{path}:{line}: {word}" for path in ABOVE_MODELS for line, word in words_of(path) if word in settings]
    assert not found, found


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ("runs/folder.py", {folder.LAST, folder.BEST, folder.CONFIG, folder.METRICS, folder.RESULT, folder.IDS}),
        ("data/files.py", {"inter.csv", "_feat.npy", "_graph.npz", "*.inter"}),
    ],
)
def test_file_names_have_one_owner(owner: str, words: set[str]) -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in words:
                assert path == PACKAGE / owner, f"{path}:{node.lineno}: {node.value!r} belongs to {owner}"


def test_the_front_page_is_all_that_gathers() -> None:
    """The commands are at the top: not even the front page imports one."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert all(level(name) < COMMANDS for _, name in imported(tree))
