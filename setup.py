"""Build of smore_ext: finds torch, decides about CUDA and compiles csrc/ into smore_ext._C.

Environment variables:
  SMORE_CUDA=0|1         leave the CUDA kernels out | require them.
                         Unset: they are built where torch is a CUDA build and nvcc is found.
  FORCE_CUDA=1           the same as SMORE_CUDA=1
  TORCH_CUDA_ARCH_LIST   GPU architectures, as for every torch extension
  CUDA_HOME              the CUDA toolkit; unset: where the nvcc on PATH says that it lives
  CXX, CFLAGS, MAX_JOBS  compiler, further flags, parallel compile jobs
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple, NoReturn

import setuptools
from setuptools import setup

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)
PINNED_TORCH = "2.13.0"  # the torch that an environment without one gets
REQUIREMENTS = [
    "numpy>=1.26",
    "scipy>=1.11",
    "pandas>=2.1",
    "click>=8.1",
    "pydantic>=2.8",
    "annotated-types>=0.6",
    "rich>=13",
    "pyyaml>=6",
    "safetensors>=0.4.3",
]
# Neither -march nor fast-math: kernels choose their SIMD level at run time and match the reference.
# No -fopenmp either: threads are libtorch's own, so that the process has one OpenMP runtime.
CXX_FLAGS = ["-O3", "-std=c++20", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
NVCC_FLAGS = ["-O3", "-std=c++20"]  # no --use_fast_math: kernels match the reference


def fail(message: str) -> NoReturn:
    """End the build with one message."""
    raise SystemExit(f"\nsmore_ext: {message}\n")


def find_torch(target: str | None):
    """The torch module of the environment of the interpreter `target`, or None.

    Without build isolation it is imported like anything else, whatever `target` is.
    """
    torch = imported_torch()
    if torch is None and target is not None:
        # Asked without pip's variables where it imports from. Appended: the build's own setuptools goes first.
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONNOUSERSITE")}
        command = [target, "-c", "import sys; print(sys.implementation.cache_tag, *sys.path[1:], sep='\\n')"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        tag, *paths = done.stdout.splitlines()
        if tag != sys.implementation.cache_tag:
            fail(f"this build runs in {sys.implementation.cache_tag}, but is for {tag} ({target})")
        sys.path += [path for path in paths if path not in sys.path]
        torch = imported_torch()
    return torch


def imported_torch():
    """torch, or None where it is not installed."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None
    return torch


def find_target() -> str | None:
    """The interpreter of the environment that the package is installed into, or None where nothing tells.

    Build isolation hides that environment. pip runs its interpreter all the same; uv runs another one, but can be
    asked. Others (`python -m build`, `uv build`) make a wheel for an environment that nobody names.
    """
    if "PIP_BUILD_TRACKER" in os.environ:
        return sys.executable
    uv = os.environ.get("UV")
    return uv_target(uv, Path("/proc") / str(os.getppid())) if uv else None


def uv_target(uv: str, process: Path) -> str | None:
    """The interpreter that `uv` installs for, where it is the process at that place in /proc; None where it is not.

    What uv was called with means the environment, so uv is asked what that is, with the same options, in the same
    folder, with the same variables (of which it changes VIRTUAL_ENV for the build).
    """
    try:
        if (process / "exe").resolve() != Path(uv).resolve():
            return None
        words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")[1:-1]
        variables = os.fsdecode((process / "environ").read_bytes()).split("\0")
        folder = (process / "cwd").resolve()
    except OSError:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-p", "--python")
    parser.add_argument("--system", action="store_true")
    parser.add_argument("-t", "--target", "--prefix", dest="folder")
    try:
        options, words = parser.parse_known_args(words)
    except argparse.ArgumentError:
        return None
    if options.folder or {"build", "tool"} & set(words):  # no environment, or one that is still to come
        return None
    env = dict(variable.split("=", 1) for variable in variables if "=" in variable)
    command = [uv, "python", "find", *(["--system"] if options.system else [])]
    request = options.python or env.get("UV_PYTHON")
    done = subprocess.run(command + ([request] if request else []), cwd=folder, env=env, capture_output=True, text=True)
    return done.stdout.strip() or None


def check_torch(torch) -> None:
    """Stop where torch is older than what the sources are written for."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        fail(f"torch >= {oldest} is needed, found {torch.__version__} in {os.path.dirname(torch.__file__)}")


def check_setuptools() -> None:
    """Stop where setuptools, older than what pyproject.toml asks for, would not understand that file."""
    if int(setuptools.__version__.split(".")[0]) < 77:
        fail(
            f"setuptools >= 77 is needed, found {setuptools.__version__}: pip install --upgrade setuptools, "
            "or build by `pip install -e .`, which brings it."
        )


def check_compiler() -> None:
    """Stop with the reason where the compiler, its C++20 or Python's headers are missing."""
    command = shlex.split(os.environ.get("CXX", "c++"))
    if not command or shutil.which(command[0]) is None:
        where = "CXX" if "CXX" in os.environ else "the default, as CXX is not set"
        fail(
            f"no C++ compiler: {' '.join(command) or 'an empty name'} ({where}) was not found. "
            "Install g++ 12 or newer (Debian, Ubuntu: apt install g++), or name a compiler in CXX."
        )
    probe = (
        "#include <Python.h>\n#include <version>\n#ifndef __cpp_lib_bit_cast\n#error no C++20\n#endif\n"
        "#if !__has_builtin(__builtin_shufflevector)\n#error no __builtin_shufflevector\n#endif\n"
    )
    flags = ["-std=c++20", "-fsyntax-only", "-I", sysconfig.get_paths()["include"], "-x", "c++", "-"]
    result = subprocess.run([*command, *flags], input=probe, capture_output=True, text=True)
    if result.returncode == 0:
        return
    if re.search(r"Python\.h.*(No such file|not found)", result.stderr):
        fail(
            f"Python's headers are missing: no Python.h in {sysconfig.get_paths()['include']}. "
            "Install them (Debian, Ubuntu: apt install python3-dev)."
        )
    fail(
        f"{' '.join(command)} cannot compile C++20 with vector shuffles; g++ 12 or newer can. "
        f"It said:\n{result.stderr.strip()}"
    )


def cuda_toolkit() -> str | None:
    """Folder of the CUDA toolkit, or None where there is none.

    nvcc itself is asked: the one on PATH may be a wrapper or a link outside its toolkit, where torch's guess (two
    folders up) finds neither headers nor libraries.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=os.path.join(named, "bin")) if named else shutil.which("nvcc")
    if nvcc is None:
        return None
    command = [nvcc, "--dryrun", "-c", "-x", "cu", os.devnull, "-o", os.devnull]
    found = re.search(r"^#\$ TOP=(.+)$", subprocess.run(command, capture_output=True, text=True).stderr, re.MULTILINE)
    return os.path.realpath(found[1].strip()) if found else named or os.path.dirname(os.path.dirname(nvcc))


class Cufft(NamedTuple):
    """Where cuFFT is: the folder of its header, and the library file."""

    include: str
    library: str


def find_cufft(toolkit: str, torch) -> Cufft | None:
    """cuFFT of the toolkit, or else of the package nvidia-cufft that a CUDA torch brings along.

    The package has no libcufft.so, only the file with the version, so the library is linked by its file.
    """
    packages = Path(torch.__file__).resolve().parents[1] / "nvidia"
    for folder in [Path(toolkit), *sorted(packages.glob("*"))]:
        header = folder / "include" / "cufft.h"
        libraries = sorted(path for lib in ("lib64", "lib") for path in (folder / lib).glob("libcufft.so*"))
        if header.is_file() and libraries:
            return Cufft(str(header.parent), str(libraries[0]))
    return None


def use_cuda(torch_version: str, torch_cuda: str | None, toolkit: str | None, cufft: Cufft | None, sources) -> bool:
    """Whether to build the CUDA kernels: by SMORE_CUDA, FORCE_CUDA and what is there. Prints the choice."""
    wish = os.environ.get("SMORE_CUDA", "1" if os.environ.get("FORCE_CUDA") == "1" else "")
    if wish not in ("", "0", "1"):
        fail(f"SMORE_CUDA must be 0, 1 or unset, got {wish!r}")
    missing = ""
    if not sources:
        missing = "this version has no CUDA kernels (no sources in csrc/**/cuda)"
    elif torch_cuda is None:
        missing = f"torch {torch_version} is not a CUDA build"
    elif toolkit is None:
        missing = "nvcc was not found (set CUDA_HOME or put nvcc on PATH)"
    elif cufft is None:
        missing = f"cuFFT was not found, neither in {toolkit} nor beside torch (pip install nvidia-cufft)"
    if wish == "1" and missing:
        fail(f"SMORE_CUDA=1 asks for the CUDA kernels, but {missing}")
    chosen = wish != "0" and not missing
    reason = "SMORE_CUDA=0" if wish == "0" else missing or f"CUDA {torch_cuda}, toolkit {toolkit}"
    print(f"smore_ext: CUDA kernels: {'yes' if chosen else 'no'} ({reason})")
    return chosen


def set_cuda_archs(torch, toolkit: str) -> str:
    """Returns TORCH_CUDA_ARCH_LIST, set first where it is unset, as torch then fails without a GPU.

    It is set to the GPUs at hand or, without one, to what this nvcc knows of those that training runs on.
    """
    if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        count = torch.cuda.device_count()
        archs = sorted({torch.cuda.get_device_capability(i) for i in range(count)})
        if not archs:
            command = [os.path.join(toolkit, "bin", "nvcc"), "--list-gpu-code"]
            known = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            archs = [(major, minor) for major, minor in ((8, 0), (9, 0), (12, 0)) if f"sm_{major}{minor}" in known]
        os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{major}.{minor}" for major, minor in archs) + "+PTX"
    return os.environ["TORCH_CUDA_ARCH_LIST"]


def files(*patterns: str) -> list[str]:
    """Sorted paths under csrc/, relative to the root, that match any of the patterns."""
    paths = (path for pattern in patterns for path in ROOT.glob(f"csrc/{pattern}"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def unit_of(source: str) -> str | None:
    """Name of the translation unit that a source is compiled in, or None for one of its own.

    Torch's headers are most of what the compiler does for a binding, so those of a family are compiled together.
    Kernels do not include torch, and stay alone.
    """
    _, *folders, name = source.split("/")
    match folders:
        case [] | ["cpu"]:
            return "module"
        case [folder] if name.endswith(".cpp"):
            return folder
        case [family, "cpu"] if name.endswith("_cpu.cpp"):
            return family
        case [family, "cuda"] if name.endswith("_cuda.cpp"):
            return f"{family}_cuda"
    return None


def united(sources: list[str]) -> list[str]:
    """The files to compile in place of `sources`: those of a unit are included by one, which is written to build/."""
    units: dict[str, list[str]] = {}
    alone = []
    for source in sources:
        name = unit_of(source)
        if name is None:
            alone.append(source)
        else:
            units.setdefault(name, []).append(source)
    folder = Path("build/units")
    (ROOT / folder).mkdir(parents=True, exist_ok=True)
    for name, included in units.items():
        text = "".join(f'#include "../../{path}"\n' for path in included)
        path = ROOT / folder / f"{name}.cpp"
        if not path.is_file() or path.read_text() != text:  # one that is written anew is compiled anew
            path.write_text(text)
    # The slow ones first.
    return [(folder / f"{name}.cpp").as_posix() for name in units] + alone


def make_extension(torch):
    """The extension module smore_ext._C."""
    from torch.utils import cpp_extension

    host_sources = [path for path in files("**/*.cpp") if "/cuda/" not in path]
    cuda_sources = files("cuda/*.cpp", "cuda/*.cu", "*/cuda/*.cpp", "*/cuda/*.cu")
    toolkit = cuda_toolkit() if torch.version.cuda else None
    cufft = find_cufft(toolkit, torch) if toolkit else None
    cuda = use_cuda(torch.__version__, torch.version.cuda, toolkit, cufft, cuda_sources)
    if cuda:
        cpp_extension.CUDA_HOME = os.environ["CUDA_HOME"] = toolkit

    flags = list(CXX_FLAGS)
    if "-g" not in shlex.split(os.environ.get("CFLAGS", "")):
        flags.append("-g0")  # Python's own flags bring -g: with torch's headers, most of an object file
    macros = {"SMORE_BUILD_TORCH": torch.__version__, "SMORE_BUILD_FLAGS": " ".join(flags)}
    if cuda:
        macros |= {"SMORE_BUILD_CUDA": torch.version.cuda, "SMORE_BUILD_CUDA_ARCHS": set_cuda_archs(torch, toolkit)}
    # As system folders: -Wextra is for our code, not for torch's headers.
    flags += [f"-isystem{path}" for path in cpp_extension.include_paths()]
    if cuda:
        # Searched last: the package has headers named like the toolkit's, and lacks some that those include.
        flags += ["-idirafter", cufft.include]
    make = cpp_extension.CUDAExtension if cuda else cpp_extension.CppExtension
    return make(
        name="smore_ext._C",
        sources=host_sources + (cuda_sources if cuda else []),
        depends=files("**/*.h", "**/*.inl", "**/*.cuh"),
        include_dirs=[str(ROOT / "csrc")],
        define_macros=[(name, f'"{value}"') for name, value in macros.items()],
        extra_compile_args={"cxx": flags, "nvcc": NVCC_FLAGS},
        extra_link_args=[cufft.library] if cuda else [],
    )


def make_build_ext():
    """torch's build_ext with our checks before it and one message after a failure."""
    from setuptools.errors import CompileError, LinkError
    from torch.utils import cpp_extension

    class BuildExtension(cpp_extension.BuildExtension):
        def run(self) -> None:
            check_compiler()
            words = shlex.split(os.environ.get("CXX", ""))
            if words and words[0] in ("ccache", "sccache") and hasattr(cpp_extension, "_wrap_compiler"):
                # This torch puts the wrapper before the compiler by itself, and takes CXX for one word.
                os.environ["CXX"] = shlex.join(words[1:])
            # pip would use a temporary folder for an editable build; with the objects kept, the next is incremental.
            self.build_temp = str(ROOT / "build" / f"objects-{sys.implementation.cache_tag}")
            (extension,) = self.extensions
            sources = extension.sources
            extension.depends = [*extension.depends, *sources]
            try:
                # Here only, so that archives list the sources themselves.
                extension.sources = united(sources)
                super().run()
            except CompileError:
                self.explain("compiling")
            except LinkError:
                self.explain("linking")
            except RuntimeError as error:  # torch's own: ninja failed, or nvcc does not fit torch
                self.explain(f"compiling ({error})")
            finally:
                extension.sources = sources

        def explain(self, step: str) -> NoReturn:
            fail(
                f"building smore_ext._C failed while {step}. The reason stands above, in the compiler's own "
                "words; if they are 'Killed', memory ran out: build with MAX_JOBS=1."
            )

    return BuildExtension


def main() -> None:
    check_setuptools()
    wanted = [] if shutil.which("ninja") else ["ninja"]  # without it torch compiles one file after the other
    if sys.argv[1:2] == ["sdist"]:  # sources are for any torch
        setup(install_requires=[*REQUIREMENTS, f"torch>={'.'.join(map(str, OLDEST_TORCH))}"])
        return
    target = find_target()
    torch = find_torch(target)
    if torch is None:
        if "egg_info" not in sys.argv[1:]:  # with egg_info, the build tool is asking what the build needs
            fail(
                "no torch was found to build against. This build does not choose one, as the package works with that "
                "torch only and installing it could replace yours. In the environment that the package is for, install "
                f"torch (such as torch=={PINNED_TORCH}) and setuptools, and build there without isolation: `pip "
                "install --no-build-isolation`, `uv pip install --no-build-isolation`, `python -m build "
                "--no-isolation`. A plain `pip install` or `uv pip install` brings torch where there is none."
            )
        if target is not None:
            check_compiler()  # before torch is downloaded for nothing
            wanted.append(f"torch=={PINNED_TORCH}")
        setup(setup_requires=wanted)
        return
    check_torch(torch)
    # Without the local part (2.13.0+cpu): `==2.13.0` accepts any, and an index need not have that very one.
    setup(
        setup_requires=wanted,
        install_requires=[*REQUIREMENTS, f"torch=={torch.__version__.split('+')[0]}"],
        ext_modules=[make_extension(torch)],
        cmdclass={"build_ext": make_build_ext()},
    )


if __name__ == "__main__":
    main()
