"""The pages: links, citations, paths, names and commands exist, snippets run, the table of speed is that of results."""

from __future__ import annotations

import importlib
import io
import re
import runpy
import shlex
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import plot_ratios

ROOT = Path(__file__).resolve().parents[1]
SPEC = "docs/spec.md"
# Pages that tell how things are now. A log, a changelog or a page of results names what was there when it was written.
CURRENT = sorted(
    [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"]
    + [*ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"]
)
PAGES = sorted({*CURRENT, *ROOT.glob("*.md"), *ROOT.glob("benchmarks/**/*.md")})
RUN = [path for path in CURRENT if "```python" in path.read_text(encoding="utf-8")]
SOURCES = [
    path
    for folder in ("smore_ext", "csrc", "tests", "benchmarks", "examples", "tools")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".h", ".cpp", ".inl", ".cu", ".cuh") and path != Path(__file__).resolve()
]
FOLDERS = tuple(sorted(path.name for path in ROOT.iterdir() if path.is_dir()))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def fenced(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """A page without its fenced blocks, and the blocks: (language, content)."""
    outside, inside, found = [], None, []
    for line in text(path).splitlines(keepends=True):
        if line.startswith("```"):
            if inside is None:
                inside = [line[3:].strip(), ""]
            else:
                found.append((inside[0], inside[1]))
                inside = None
        elif inside is None:
            outside.append(line)
        else:
            inside[1] += line
    assert inside is None, f"{name(path)}: a block is not closed"
    return "".join(outside), found


def blocks(path: Path, language: str) -> list[str]:
    return [content for its, content in fenced(path)[1] if its == language]


def prose(path: Path) -> str:
    return fenced(path)[0]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_is_something_to_check() -> None:
    assert ROOT / SPEC in PAGES and ROOT / "README.md" in RUN and len(SOURCES) > 200


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{name(path)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name(path)}: no heading #{anchor} in {name(found)}"


def test_citations_of_the_specification_resolve() -> None:
    sections = re.split(r"^## (\d+)\. ", text(ROOT / SPEC), flags=re.MULTILINE)
    content = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert list(content) == [str(number) for number in range(1, len(content) + 1)]
    cited = 0
    for path in [*SOURCES, *CURRENT]:
        for section, step in re.findall(r"spec\.md, section (\d+)(?:, step (\d+))?", text(path)):
            assert section in content, f"{name(path)} cites section {section}"
            assert not step or f"\n{step}. **" in content[section], f"{name(path)} cites step {step} of {section}"
            cited += 1
    assert cited >= 22  # as many files as cited a page that the package did not hold


def test_only_pages_of_the_package_are_cited() -> None:
    for path in [*SOURCES, *PAGES]:
        foreign = re.search(r"\bSPEC(?=\.md| section|:)|\bDESIGN\.md", text(path))
        assert foreign is None, f"{name(path)} cites {foreign[0]}"
        for cited in re.findall(r"(?<![\w/<>.-])(?:[\w.-]+/)*[\w.-]+\.md\b", text(path)):
            if cited in ("NAME.md", "OUT_STEM.md", "comparison.md", "grid.md"):  # what a command writes
                continue
            places = (ROOT / cited, path.parent / cited, ROOT / "benchmarks" / cited, ROOT / "docs" / cited)
            assert any(place.is_file() for place in places), f"{name(path)} cites {cited}"


@pytest.mark.parametrize("path", CURRENT, ids=name)
def test_paths_exist(path: Path) -> None:
    """What stands in backticks and begins with a folder of the repository is there, patterns aside."""
    for quoted in re.findall(r"`([^`\n]+)`", prose(path)):
        found = re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", quoted)
        if found and quoted.split("/")[0] in FOLDERS:
            assert (ROOT / quoted).exists(), f"{name(path)} names {quoted}"


@pytest.mark.parametrize("path", CURRENT, ids=name)
def test_names_exist(path: Path) -> None:
    """smore_ext.a.b in the text is a module or an attribute; so is ops.x, for the ops."""
    ops = r"`ops\.(\w+)" if path.name != "README.md" else r"ops\.(\w+)\("
    for dotted in [f"smore_ext.ops.{op}" for op in re.findall(ops, text(path))] + re.findall(
        r"`(smore_ext(?:\.\w+)+)", text(path)
    ):
        found, *rest = dotted.split(".")
        value: object = importlib.import_module(found)
        for part in rest:
            if not hasattr(value, part) and isinstance(value, ModuleType):
                importlib.import_module(f"{value.__name__}.{part}")
            value = getattr(value, part)


def test_the_map_names_every_folder_and_module() -> None:
    shown = "\n".join(blocks(ROOT / "README.md", ""))
    package = ROOT / "smore_ext"
    folders = [path.parent for path in package.glob("*/__init__.py")] + [
        path for path in (ROOT / "csrc").iterdir() if path.is_dir()
    ]
    modules = [path.name for path in package.glob("*.py") if path.name != "__init__.py"]
    missing = [word for word in [f"{folder.name}/" for folder in folders] + modules if word not in shown]
    assert not missing, f"README's map lacks {', '.join(missing)}"
    python = blocks(ROOT / "README.md", "")[0]
    known = {path.name for path in package.rglob("*.py")}
    assert set(re.findall(r"\b\w+\.py\b", python)) <= known


def commands() -> list[tuple[str, str]]:
    """(page, command line) of the shell blocks and of what stands in backticks."""
    found = []
    for path in CURRENT:
        lines = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`((?:python|bash|pip) [^`\n]+)`", prose(path))
        for line in lines:
            found += [(name(path), part.strip()) for part in line.partition(" #")[0].split("&&") if part.strip()]
    return found


def help_of(module: str) -> str:
    """What `python -m module --help` prints."""
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, "--help"])
        # Of a package its `__main__` runs. The package itself stays: another object in its place lacks its modules.
        ran = f"{module}.__main__" if hasattr(sys.modules.get(module), "__path__") else module
        patch.delitem(sys.modules, ran, raising=False)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert ended.value.code in (0, None)
    return out.getvalue()


def test_help_leaves_a_package_as_it_is() -> None:
    package = importlib.import_module("smore_ext.prepare")
    help_of("smore_ext.prepare")
    assert importlib.import_module("smore_ext").prepare is package is sys.modules["smore_ext.prepare"]
    assert package.folder is sys.modules["smore_ext.prepare.folder"]


def test_commands_exist() -> None:
    checked, helps = 0, {}
    for page, line in commands():
        words = shlex.split(line)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words[:1] == ["bash"]:
            assert (ROOT / words[1]).is_file(), f"{page}: {line}"
        elif words[:2] == ["python", "-m"] and words[2].startswith("smore_ext."):
            module, *arguments = words[2:]
            if module not in helps:
                helps[module] = help_of(module)
            for flag in [word.partition("=")[0] for word in arguments if word.startswith("-")]:
                assert re.search(rf"(?<![\w-]){flag}\b", helps[module]), f"{page}: {line}: no {flag}"
        elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
            assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file(), f"{page}: {line}"
        elif words[:1] == ["python"] and len(words) > 1 and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), f"{page}: {line}"
        else:
            continue
        checked += 1
    assert checked > 20


def test_the_two_commands_are_where_ci_looks_for_them() -> None:
    lines = text(ROOT / "README.md").splitlines()
    marker = lines.index("<!-- test-command -->")
    assert lines[marker + 1] == "```bash" and lines[marker + 2].endswith("&& python -m pytest -n 2")
    assert "pip install -e . && python -m smore_ext.train" in text(ROOT / "README.md")


def prepared() -> dict[str, object]:
    """What a snippet may take for granted."""
    from smore_ext import Graph, ops

    generator = torch.Generator().manual_seed(1)
    n_users, n_items = 30, 40
    users = torch.arange(n_users).repeat_interleave(4)
    items = torch.randint(n_items, (len(users),), generator=generator)
    return {
        "Graph": Graph,
        "ops": ops,
        "torch": torch,
        "n_users": n_users,
        "n_items": n_items,
        "users": users,
        "items": items,
        "embeddings": torch.randn(n_users + n_items, 16, generator=generator),
        "seen": Graph.from_edges(users, items, None, (n_users, n_items)),
    }


@pytest.mark.parametrize("path", RUN, ids=name)
def test_snippets_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of Python of a page, in order, as one program."""
    monkeypatch.chdir(tmp_path)
    names = prepared()
    for number, block in enumerate(blocks(path, "python")):
        exec(compile(block, f"{name(path)}, block {number}", "exec"), names)


def test_the_table_of_speed_is_that_of_the_results() -> None:
    assert "\n".join(plot_ratios.table()) in text(ROOT / "docs" / "speed.md")
    for results in map(plot_ratios.load, plot_ratios.RESULTS.values()):
        assert any(plot_ratios.measured(results, line) for line in plot_ratios.LINES)


def test_counted_changes_count_what_they_list() -> None:
    """CONTRIBUTING's ten changes: the last column is the number of files that the row names, and old ones exist."""
    rows = re.findall(r"^\| (an? [^|]+) \|([^|]*)\|([^|]*)\| (\d+) \|$", text(ROOT / "CONTRIBUTING.md"), re.MULTILINE)
    assert len(rows) == 10
    for change, new, edited, count in rows:
        paths = [re.findall(r"`([^`]+)`", cell) for cell in (new, edited)]
        assert len(paths[0]) + len(paths[1]) == int(count), change
        assert all((ROOT / path.replace("<family>", "sparse")).is_file() for path in paths[1]), change
