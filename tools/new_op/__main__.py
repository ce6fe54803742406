"""Creates an op: python tools/new_op NAME --family FAMILY [--differentiable]

Writes five files and adds to three: contract, kernels for CPU and CUDA, their C++ test; public function, twin in plain
PyTorch, cases. They compile and pass the tests of the op table as they are, with a placeholder for a formula (each row
times a number of its own): docs/new-op.md says what to do with each. Needs nothing but Python; files are formatted
where ruff and clang-format are installed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(__file__).resolve().parent / "templates"
SHARED = ("common", "cpu", "cuda")  # folders of csrc that are no family

NEW = {  # path -> template
    "csrc/{family}/{op}.cpp": "contract.cpp.in",
    "csrc/{family}/{op}_kernel.h": "kernel.h.in",
    "csrc/{family}/cpu/{op}_kernel.cpp": "cpu_kernel.cpp.in",
    "csrc/{family}/cuda/{op}_kernel.cu": "cuda_kernel.cu.in",
    "tests/cpp/test_cuda_{op}.cpp": "test.cpp.in",
}
OPS, CASES, REFERENCE = "smore_ext/ops/{family}.py", "smore_ext/testing/cases/{family}.py", "smore_ext/reference.py"


def fail(message: str) -> None:
    raise SystemExit(f"new_op: {message}")


def families(root: Path) -> list[str]:
    """The families that csrc, ops and the op table have."""
    folders = (path.name for path in (root / "csrc").iterdir() if path.is_dir() and path.name not in SHARED)
    return sorted(f for f in folders if all((root / path.format(family=f)).is_file() for path in (OPS, CASES)))


def check(root: Path, op: str, family: str) -> None:
    """Ends the program with one message where the op cannot be made."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", op):
        fail(f"NAME must be words in lower case with underscores between them, got {op!r}")
    if family not in families(root):
        fail(f"FAMILY must be one of {', '.join(families(root))}, got {family!r} (docs/new-op.md: a new family)")
    taken = [path for path in (root / "csrc").rglob(f"{op}*") if path.stem in (op, f"{op}_kernel")]
    taken += [path for path in (root / "csrc").glob("*/*.cpp") if f'"{op}(' in path.read_text()]
    taken += [path for path in (root / "smore_ext").glob("**/*.py") if f"\ndef {op}(" in path.read_text()]
    if taken:
        fail(f"NAME must be new, got {op!r}, which {taken[0].relative_to(root)} has")


def read(template: str) -> str:
    return (TEMPLATES / template).read_text()


def filled(template: str, op: str, family: str, differentiable: bool) -> str:
    """The text of a template: names put in, and of its two variants the one that is asked for.

    Whole lines: from `@@ if differentiable`, with `@@ else` perhaps, to `@@ end`. Less: `@@differentiable{text}`.
    """
    text = re.sub(r"@@differentiable\{(.*?)\}", r"\1" if differentiable else "", template, flags=re.DOTALL)
    lines, keep = [], True
    for line in text.splitlines():
        if line.startswith("@@ "):
            keep = {"@@ if differentiable": differentiable, "@@ else": not keep, "@@ end": True}[line]
        elif keep:
            lines.append(line)
    names = {"OpName": "".join(word.capitalize() for word in op.split("_")), "op_name": op, "family_name": family}
    text = "\n".join(lines) + "\n"
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return text


def listed(text: str, name: str) -> str:
    """The text of a module with one more name in its __all__."""
    found = re.search(r"^__all__ = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError("the module has no list __all__")
    names = sorted({*re.findall(r'"(\w+)"', found[1]), name})
    return text.replace(found[0], f"__all__ = [{', '.join(f'{chr(34)}{n}{chr(34)}' for n in names)}]")


def importing(text: str, module: str, names: Sequence[str]) -> str:
    """The text of a module that imports these names, too; names in the order of isort."""
    found = re.search(rf"^from {re.escape(module)} import (\([^)]*\)|[^\n(]+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"the module imports nothing from {module}")
    known = re.findall(r"\w+", found[1])

    def order(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    line = f"from {module} import {', '.join(sorted({*known, *names}, key=order))}"
    return text.replace(found[0], line)


def texts(root: Path, op: str, family: str, differentiable: bool) -> dict[str, str]:
    """Path -> text of every file that is written or changed."""
    names = {"op": op, "family": family}
    made = {path.format(**names): filled(read(template), op, family, differentiable) for path, template in NEW.items()}
    for path, template in ((OPS, "ops.py.in"), (REFERENCE, "reference.py.in"), (CASES, "case.py.in")):
        path = path.format(**names)
        made[path] = f"{(root / path).read_text()}\n\n{filled(read(template), op, family, differentiable)}"
    ops, cases = OPS.format(**names), CASES.format(**names)
    made[ops] = listed(made[ops], op)
    made[ops] = importing(made[ops], "smore_ext.ops._register", ("autocast_float32", "fake"))
    made[cases] = listed(made[cases], f"{op}_case")
    made[cases] = importing(made[cases], "smore_ext.testing.case", ("Args", "OpCase", "OpError", "rand"))
    return made


def tool(name: str) -> str | None:
    """Path of a program, beside this Python or on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


def formatted(root: Path, paths: Mapping[str, str]) -> list[str]:
    """Formats the files; returns what is missing for that."""
    python = [path for path in paths if path.endswith(".py")]
    cpp = [path for path in paths if not path.endswith(".py")]
    missing = []
    for name, arguments, files in (("ruff", ["format", "--quiet"], python), ("clang-format", ["-i"], cpp)):
        program = tool(name)
        if program is None:
            missing.append(name)
        else:
            subprocess.run([program, *arguments, *files], cwd=root, check=True)
    return missing


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(
        prog="python tools/new_op", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="of the op everywhere: words_with_underscores")
    parser.add_argument("--family", required=True, metavar="FAMILY", help=", ".join(families(root)))
    parser.add_argument("--differentiable", action="store_true", help="with autograd and a backward op")
    options = parser.parse_args(argv)
    check(root, options.name, options.family)
    made = texts(root, options.name, options.family, options.differentiable)
    new = [path for path in made if not (root / path).exists()]
    for path, text in made.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    missing = formatted(root, made)
    for path in made:
        print(f"{'new' if path in new else 'added to':<9}{path}")
    if missing:
        print(f"not formatted: {' and '.join(missing)} not found")
    print("Now build, and run the tests that docs/new-op.md names; then put your formula in for each TODO.")


if __name__ == "__main__":
    main()
