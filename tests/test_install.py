"""The installation: what the build says of itself, the doctor, OpenMP and threads, setup.py's messages."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml

import smore_ext
from smore_ext import _native, doctor, ops, reference

ROOT = Path(__file__).parent.parent


def run_python(code: str, **env: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter with additional environment variables."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def setup_module() -> ModuleType:
    """setup.py as a module; importing it builds nothing."""
    spec = importlib.util.spec_from_file_location("smore_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_build_info_agrees_with_torch():
    info = smore_ext.build_info()
    assert info["torch"] == torch.__version__
    assert info["cuda"] in (None, torch.version.cuda)
    assert (info["cuda"] is None) == (info["cuda_archs"] is None)
    assert info["simd"] in info["simd_built"].split()
    assert not [flag for flag in ("-march", "fast-math", "openmp") if flag in info["flags"]]
    assert ("OpenMP" in info["threading"]) == ("parallel backend: OpenMP" in torch.__config__.parallel_info())


def test_the_distribution_requires_the_torch_of_the_build():
    assert f"torch=={torch.__version__.split('+')[0]}" in metadata.requires("smore-ext")
    assert metadata.version("smore-ext") == smore_ext.__version__


def test_the_files_that_are_no_code_come_along():
    """Also in a wheel, where this runs without the checkout's package."""
    place = Path(smore_ext.__file__).parent
    assert {path.name for path in (place / "serving" / "web" / "page").iterdir()} >= {
        "index.html",
        "page.css",
        "page.js",
    }
    assert (place / "py.typed").is_file() and list((place / "presets").glob("*.yaml"))


def test_another_torch_is_named_before_the_library_is_loaded(monkeypatch):
    built = smore_ext.build_info()["torch"]
    monkeypatch.setattr(torch, "__version__", "1.0.0")
    with pytest.raises(ImportError, match="does not fit this torch") as error:
        _native._load()
    assert built in str(error.value) and "1.0.0" in str(error.value) and "pip install" in str(error.value)


def test_a_missing_library_says_how_to_build_it(monkeypatch):
    monkeypatch.setattr(_native, "_MODULE", "smore_ext._absent")
    with pytest.raises(ImportError, match="smore_ext._absent is missing.*pip install"):
        _native._load()


def test_simd_level_is_chosen_by_the_environment():
    code = "from smore_ext import build_info; print(build_info()['simd'])"
    assert run_python(code, SMORE_SIMD="portable").stdout.strip() == "portable"
    assert "got fastest" in run_python(code, SMORE_SIMD="fastest").stderr


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc/self/maps")
def test_one_openmp_runtime():
    code = "from smore_ext import doctor; doctor.self_test(); print(len(doctor.openmp_runtimes()))"
    assert run_python(code).stdout.strip() == "1"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc/self/task")
@pytest.mark.parametrize("threads", [1, 3])
def test_set_num_threads_is_respected(threads):
    code = f"""
import os, torch
from smore_ext import ops
torch.set_num_threads(1)  # so that making the inputs starts no thread
x, weight = torch.ones(50_000, 64), torch.ones(33, 2)
torch.set_num_threads({threads})
before = len(os.listdir("/proc/self/task"))
ops.spectral_filter(x, weight)
print(len(os.listdir("/proc/self/task")) - before)
"""
    result = run_python(code)
    assert result.stdout.strip() == str(threads - 1), result.stderr


def test_doctor_passes_and_writes_json(tmp_path):
    assert doctor.main(["--json", str(tmp_path / "doctor.json")]) == 0
    findings = json.loads((tmp_path / "doctor.json").read_text())
    assert findings["passed"] and findings["build"] == smore_ext.build_info()
    assert {entry["op"] for entry in findings["self_test"]} == set(ops.__all__)


@pytest.mark.parametrize("name", ["bpr_loss", "knn", "masked_topk"])
def test_doctor_fails_on_a_mismatch(monkeypatch, capsys, name):
    right = getattr(reference, name)

    def wrong(*args):
        out = right(*args)
        return tuple(value * 2 for value in out) if isinstance(out, tuple) else out * 2

    monkeypatch.setattr(reference, name, wrong)
    assert doctor.main([]) == 1
    output = capsys.readouterr().out
    count = len(doctor.devices())
    passed = (len(ops.__all__) - 1) * count
    assert "FAILED" in output and f"{passed} ops passed, {count} failed" in output


def test_doctor_counts_each_device(monkeypatch):
    monkeypatch.setattr(doctor, "devices", lambda: ["cpu", "meta"])
    monkeypatch.setattr(ops, "__all__", ["knn"])
    results = doctor.self_test()
    assert [(result.op, result.device, bool(result.problem)) for result in results] == [
        ("knn", "cpu", False),
        ("knn", "meta", True),
    ]


def test_every_op_has_a_self_test_case():
    assert all(doctor.self_test_cases(name) for name in ops.__all__)


def test_doctor_fails_on_an_op_without_a_case(monkeypatch):
    monkeypatch.setattr(ops, "__all__", [*ops.__all__, "new_op"])
    assert doctor.main([]) == 1


def test_doctor_fails_on_an_op_that_raises(monkeypatch):
    monkeypatch.setattr(ops, "knn", lambda *_: 1 / 0)
    result = doctor.check_op("knn")
    assert result.problem == "ZeroDivisionError: division by zero"


def test_build_names_a_missing_compiler(setup_module, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    with pytest.raises(SystemExit, match=r"no C\+\+ compiler: /nonexistent/c\+\+ \(CXX\) was not found"):
        setup_module.check_compiler()


def test_build_names_a_compiler_that_is_too_old(setup_module, monkeypatch, tmp_path):
    old = tmp_path / "c++"
    old.write_text("#!/bin/sh\necho \"unrecognized option '-std=c++20'\" >&2\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    with pytest.raises(SystemExit, match=r"cannot compile C\+\+20.*\n.*unrecognized option"):
        setup_module.check_compiler()


def test_build_names_missing_python_headers(setup_module, monkeypatch, tmp_path):
    monkeypatch.setattr(setup_module.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(SystemExit, match="no Python.h in"):
        setup_module.check_compiler()


def test_build_refuses_an_old_torch(setup_module):
    old = ModuleType("torch")
    old.__version__, old.__file__ = "2.5.1+cpu", "/site/torch/__init__.py"
    with pytest.raises(SystemExit, match=r"torch >= 2.11 is needed, found 2.5.1\+cpu in /site/torch"):
        setup_module.check_torch(old)


def test_build_refuses_an_old_setuptools(setup_module, monkeypatch):
    monkeypatch.setattr(setup_module.setuptools, "__version__", "65.5.0")
    with pytest.raises(SystemExit, match="setuptools >= 77 is needed, found 65.5.0"):
        setup_module.main()


@pytest.fixture
def uv(tmp_path: Path) -> tuple[str, Callable[..., Path]]:
    """A stand-in for uv that says how it was asked, and a maker of its folder in /proc for a command line."""
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho "$VIRTUAL_ENV: $*, in $PWD"\n')
    uv.chmod(0o755)

    def process(*words: str, exe: Path = uv, **variables: str) -> Path:
        folder = tmp_path / "process"
        folder.mkdir()
        (folder / "exe").symlink_to(exe)
        (folder / "cwd").symlink_to(tmp_path)
        (folder / "cmdline").write_text("\0".join(["uv", *words, ""]))
        entries = {"VIRTUAL_ENV": "/target", **variables}.items()
        (folder / "environ").write_text("\0".join([*(f"{name}={value}" for name, value in entries), ""]))
        return folder

    return str(uv), process


@pytest.mark.parametrize(
    ("words", "variables", "asked"),
    [
        (["pip", "install", "-e", "."], {}, "python find"),
        (["pip", "install", "--python", "../env", "--dry-run", "."], {}, "python find ../env"),
        (["--quiet", "pip", "install", "--python=3.12", "."], {}, "python find 3.12"),
        (["pip", "install", "-penv", "."], {}, "python find env"),
        (["pip", "install", "."], {"UV_PYTHON": "env"}, "python find env"),
        (["pip", "install", "--system", "."], {}, "python find --system"),
        (["sync"], {}, "python find"),
    ],
)
def test_uv_is_asked_for_the_environment_that_it_installs_into(setup_module, uv, tmp_path, words, variables, asked):
    program, process = uv
    assert setup_module.uv_target(program, process(*words, **variables)) == f"/target: {asked}, in {tmp_path}"


@pytest.mark.parametrize(
    "words",
    [
        ["build", "--wheel"],
        ["tool", "install", "."],
        ["pip", "install", "--target", "folder", "."],
        ["pip", "install", "--prefix=folder", "."],
        ["pip", "install", "--python"],
    ],
)
def test_where_uv_installs_into_no_environment_none_is_named(setup_module, uv, words):
    program, process = uv
    assert setup_module.uv_target(program, process(*words)) is None


def test_another_process_than_uv_is_not_taken_for_it(setup_module, uv, tmp_path):
    program, process = uv
    assert setup_module.uv_target(program, process("pip", "install", ".", exe=Path(sys.executable))) is None
    assert setup_module.uv_target(program, tmp_path / "no such process") is None


def test_the_build_tool_tells_the_target(setup_module, monkeypatch):
    monkeypatch.setattr(setup_module, "uv_target", lambda uv, process: f"what {uv} says")
    monkeypatch.delenv("PIP_BUILD_TRACKER", raising=False)
    monkeypatch.delenv("UV", raising=False)
    assert setup_module.find_target() is None
    monkeypatch.setenv("UV", "/bin/uv")
    assert setup_module.find_target() == "what /bin/uv says"
    monkeypatch.setenv("PIP_BUILD_TRACKER", "/tmp/tracker")
    assert setup_module.find_target() == sys.executable


def test_a_target_of_another_python_is_refused(setup_module, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho cpython-399\necho /site\n")
    python.chmod(0o755)
    monkeypatch.setattr(setup_module, "imported_torch", lambda: None)
    with pytest.raises(SystemExit, match=f"runs in {sys.implementation.cache_tag}, but is for cpython-399"):
        setup_module.find_torch(str(python))


@pytest.mark.parametrize(("target", "torches"), [(None, []), (sys.executable, ["torch==2.13.0"])])
def test_a_torch_is_asked_for_only_where_the_target_is_known_to_have_none(setup_module, monkeypatch, target, torches):
    asked = {}
    monkeypatch.setattr(setup_module, "check_setuptools", lambda: None)  # this environment's may be old
    monkeypatch.setattr(setup_module, "setup", lambda **arguments: asked.update(arguments))
    monkeypatch.setattr(setup_module, "find_target", lambda: target)
    monkeypatch.setattr(setup_module, "find_torch", lambda target: None)
    monkeypatch.setattr(sys, "argv", ["setup.py", "egg_info"])
    setup_module.main()
    assert [name for name in asked.pop("setup_requires") if name != "ninja"] == torches and not asked
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    with pytest.raises(SystemExit, match="--no-build-isolation"):
        setup_module.main()


def test_an_archive_of_the_sources_needs_no_torch_and_names_no_single_one(setup_module, monkeypatch):
    asked = {}
    monkeypatch.setattr(setup_module, "check_setuptools", lambda: None)  # this environment's may be old
    monkeypatch.setattr(setup_module, "setup", lambda **arguments: asked.update(arguments))
    monkeypatch.setattr(setup_module, "imported_torch", lambda: pytest.fail("torch is not needed"))
    monkeypatch.setattr(sys, "argv", ["setup.py", "sdist", "--formats", "gztar"])
    setup_module.main()
    assert asked == {"install_requires": [*setup_module.REQUIREMENTS, "torch>=2.11"]}


def test_every_source_is_compiled_once_and_bindings_together(setup_module, monkeypatch, tmp_path):
    monkeypatch.setattr(setup_module, "ROOT", tmp_path)
    sources = sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.suffix in (".cpp", ".cu")
    )
    compiled = setup_module.united(sources)
    units = [tmp_path / path for path in compiled if path.startswith("build/")]
    included = [line.removeprefix('#include "../../').rstrip('"') for u in units for line in u.read_text().splitlines()]
    assert sorted(included + [path for path in compiled if not path.startswith("build/")]) == sources
    # Those that include torch are in a unit, and no kernel is.
    torch = [path for path in sources if re.search(r"#include <(torch|ATen|c10)/", (ROOT / path).read_text())]
    assert set(torch) <= set(included) and not [path for path in included if "_kernel" in path]
    # What is unchanged is not written anew, and so not compiled anew.
    written = {unit: unit.stat().st_mtime_ns for unit in units}
    setup_module.united(sources)
    assert {unit: unit.stat().st_mtime_ns for unit in units} == written


@pytest.mark.parametrize(
    ("wish", "cuda", "toolkit", "cufft", "sources", "chosen"),
    [
        ({}, None, None, "cufft", ["a.cu"], False),
        ({}, "13.0", None, "cufft", ["a.cu"], False),
        ({}, "13.0", "/cuda", "cufft", [], False),
        ({}, "13.0", "/cuda", None, ["a.cu"], False),
        ({}, "13.0", "/cuda", "cufft", ["a.cu"], True),
        ({"SMORE_CUDA": "0"}, "13.0", "/cuda", "cufft", ["a.cu"], False),
        ({"SMORE_CUDA": "0", "FORCE_CUDA": "1"}, "13.0", "/cuda", "cufft", ["a.cu"], False),
        ({"SMORE_CUDA": "1"}, "13.0", "/cuda", "cufft", ["a.cu"], True),
        ({"SMORE_CUDA": "1"}, None, "/cuda", "cufft", ["a.cu"], "torch 2.13.0 is not a CUDA build"),
        ({"FORCE_CUDA": "1"}, None, "/cuda", "cufft", ["a.cu"], "torch 2.13.0 is not a CUDA build"),
        ({"SMORE_CUDA": "1"}, "13.0", None, "cufft", ["a.cu"], "nvcc was not found"),
        (
            {"SMORE_CUDA": "1"},
            "13.0",
            "/cuda",
            None,
            ["a.cu"],
            "cuFFT was not found, neither in /cuda nor beside torch",
        ),
        ({"SMORE_CUDA": "1"}, "13.0", "/cuda", "cufft", [], "no sources in csrc/**/cuda"),
        ({"SMORE_CUDA": "yes"}, "13.0", "/cuda", "cufft", ["a.cu"], "must be 0, 1 or unset, got 'yes'"),
    ],
)
def test_cuda_choice(setup_module, monkeypatch, capsys, wish, cuda, toolkit, cufft, sources, chosen):
    for name in ("SMORE_CUDA", "FORCE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in wish.items():
        monkeypatch.setenv(name, value)
    if isinstance(chosen, str):
        with pytest.raises(SystemExit, match=re.escape(chosen)):
            setup_module.use_cuda("2.13.0", cuda, toolkit, cufft, sources)
    else:
        assert setup_module.use_cuda("2.13.0", cuda, toolkit, cufft, sources) is chosen
        assert f"CUDA kernels: {'yes' if chosen else 'no'} (" in capsys.readouterr().out


def test_the_toolkit_is_where_nvcc_says_not_where_the_file_on_path_lies(setup_module, monkeypatch, tmp_path):
    (tmp_path / "toolkit" / "bin").mkdir(parents=True)
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho '#$ TOP={tmp_path}/toolkit/bin/..' >&2\n")
    nvcc.chmod(0o755)
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{nvcc.parent}:/usr/bin:/bin")
    assert setup_module.cuda_toolkit() == str(tmp_path / "toolkit")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    assert setup_module.cuda_toolkit() is None


@pytest.mark.parametrize(
    "gpus, known, archs",
    [
        ([], "sm_75 sm_80 sm_90 sm_120", "8.0;9.0;12.0+PTX"),
        ([], "sm_70 sm_80 sm_90", "8.0;9.0+PTX"),  # CUDA 12.4
        ([(9, 0), (8, 6), (9, 0)], "sm_80", "8.6;9.0+PTX"),
    ],
)
def test_architectures_are_those_of_the_gpus_or_those_that_nvcc_knows(
    setup_module, monkeypatch, tmp_path, gpus, known, archs
):
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\nprintf '%s\\n' {known}\n")
    nvcc.chmod(0o755)
    torch_here = SimpleNamespace(
        cuda=SimpleNamespace(device_count=lambda: len(gpus), get_device_capability=lambda i: gpus[i])
    )
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "")
    assert setup_module.set_cuda_archs(torch_here, str(tmp_path)) == archs
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5")
    assert setup_module.set_cuda_archs(torch_here, str(tmp_path)) == "7.5"


def test_cufft_of_the_toolkit_goes_before_the_one_beside_torch(setup_module, tmp_path):
    torch_package = SimpleNamespace(__file__=str(tmp_path / "site" / "torch" / "__init__.py"))
    toolkit, package = tmp_path / "cuda", tmp_path / "site" / "nvidia" / "cu13"
    assert setup_module.find_cufft(str(toolkit), torch_package) is None
    for folder, lib in ((package, "lib"), (toolkit, "lib64")):
        (folder / "include").mkdir(parents=True)
        (folder / lib).mkdir()
        (folder / "include" / "cufft.h").touch()
        (folder / lib / "libcufft.so.12").touch()
        found = setup_module.find_cufft(str(toolkit), torch_package)
        assert found == (str(folder / "include"), str(folder / lib / "libcufft.so.12"))


def test_every_op_has_a_cuda_kernel_where_the_build_has_cuda():
    """No GPU is needed to ask: the dispatcher knows what is registered."""
    cuda = smore_ext.build_info()["cuda"] is not None
    names = sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("smore_ext::"))
    assert {name.removeprefix("smore_ext::") for name in names} >= set(ops.__all__)
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in names:
        if has_kernel(name, "CompositeExplicitAutograd") or has_kernel(name, "CompositeImplicitAutograd"):
            continue  # one function for every device: run.h asks for the build's devices, or it is made of other ops
        assert has_kernel(name, "CPU"), name
        assert has_kernel(name, "CUDA") == cuda, name


@pytest.mark.parametrize("level", ["portable", "avx2"])
def test_simd_level_can_be_chosen(level: str) -> None:
    """The whole op table runs at each level in CI; here: the switch works and the doctor agrees with the reference."""
    if level == "avx2" and smore_ext.build_info()["simd"] == "portable":
        pytest.skip("this processor has no AVX2")
    done = subprocess.run(
        [sys.executable, "-m", "smore_ext.doctor"],
        env={**os.environ, "SMORE_SIMD": level},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and level in done.stdout


def test_unknown_simd_level_is_a_clear_error() -> None:
    code = "import torch; from smore_ext import ops; ops.spectral_filter(torch.ones(3, 4), torch.ones(3, 2))"
    env = {**os.environ, "SMORE_SIMD": "mmx"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "SMORE_SIMD must be portable, avx2 or avx512, got mmx" in done.stderr


def test_the_linters_before_a_commit_are_those_of_the_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {entry for entry in project["project"]["optional-dependencies"]["test"] if "==" in entry}
    [repo] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    used = {entry for hook in repo["hooks"] for entry in hook.get("additional_dependencies", [])}
    assert used == {entry for entry in pinned if not entry.startswith(("mypy", "schemathesis"))}


def test_ci_tells_its_stages() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    described = re.findall(r"^#   (\w+) ", text, re.MULTILINE)
    defined = [name for name in re.findall(r"^run_(\w+)\(\)", text, re.MULTILINE) if name != "pytest"]
    assert described == defined
    done = subprocess.run(["bash", ROOT / ".ci" / "run", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2 and f"unknown stage nothing, expected one of: {' '.join(defined)}\n" in done.stdout
