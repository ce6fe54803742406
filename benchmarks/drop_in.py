"""An MMRec tree as it is and under `mmrec.patch()`: python -m benchmarks.drop_in TREE/src --data shared/data -o FOLDER

Of each model: training steps, an evaluation of validation and of test, and an epoch made of both. As it is and patched
take turns in processes of their own, one thread each; `--pairs` of them. Every process has a copy of the data folder
(the trees keep graphs there) and runs in a copy of the tree; `--fix-environment`'s fixes are in both. A step is the
time from one batch to the next: drawing, loss, backward, optimizer. An epoch is what comes once (drawing edges,
relearning graphs, shuffling) + the median step times the number of steps + both evaluations.
With `--widths image_feat=4096 text_feat=384`: features of these widths, the data's own times random numbers (seed 0):
what a step takes depends on widths, not on values. With `--profile MODEL`: the ops of steps under the patch, by their
own time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What papers have for Baby, where a file of the tree leaves a choice.
SETTINGS: dict[str, dict[str, Any]] = {
    "LightGCN": {"n_layers": 4, "reg_weight": 1e-4},
    "VBPR": {"reg_weight": 1e-2},
    "BM3": {"n_layers": 1, "reg_weight": 0.1, "dropout": 0.5},
    "FREEDOM": {"dropout": 0.8, "reg_weight": 1e-3},
    "LATTICE": {"reg_weight": 1e-5, "learning_rate": 1e-3},
    "MGCN": {"cl_loss": 0.01},
    "SMORE": {"n_ui_layers": 4, "image_knn_k": 40, "text_knn_k": 15, "reg_weight": 1e-4, "dropout_rate": 0.1},
    "MMGCN": {"reg_weight": 1e-3, "learning_rate": 1e-3},
    "LGMRec": {},
    "GRCN": {"reg_weight": 1e-3, "learning_rate": 1e-3},
}
TEN_WITHOUT_LATTICE = [model for model in SETTINGS if model != "LATTICE"]
WARM_UP = 2


class Timed:
    """The first batches of a loader, and the times between them."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader, self.steps = loader, steps
        self.start, self.between = 0.0, []  # type: float, list[float]

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        began = time.perf_counter()
        batches = iter(self.loader)
        last = time.perf_counter()
        self.start, self.between = last - began, []
        for _ in range(self.steps):
            yield next(batches)
            now = time.perf_counter()
            self.between.append(now - last)
            last = now
        self.loader.pr = self.loader.inter_pr = 0


def prepared(model: str, dataset: str, data: Path) -> tuple[Any, Any, Any, Any]:
    """A trainer and its three loaders, as the tree's quick_start makes them."""
    from utils.configurator import Config
    from utils.dataloader import EvalDataLoader, TrainDataLoader
    from utils.dataset import RecDataset
    from utils.utils import get_model, get_trainer, init_seed

    config = Config(model, dataset, {"gpu_id": 0, "use_gpu": False, "data_path": f"{data}/", "seed": 999})
    for name in config["hyper_parameters"]:
        value = config[name]
        config[name] = SETTINGS.get(model, {}).get(name, value[0] if isinstance(value, list) else value)
    train, valid, test = parts = RecDataset(config).split()
    for part in parts:
        str(part)  # counts what its loader reads
    init_seed(config["seed"])
    loader = TrainDataLoader(config, train, batch_size=config["train_batch_size"], shuffle=True)
    others = [
        EvalDataLoader(config, of, additional_dataset=train, batch_size=config["eval_batch_size"])
        for of in (valid, test)
    ]
    loader.pretrain_setup()
    network = get_model(model)(config, loader).to(config["device"])
    return get_trainer()(config, network, False), loader, *others


def measured(model: str, dataset: str, data: Path, steps: int, profile: bool) -> dict[str, Any]:
    """Seconds of one process, in the folder of the tree."""
    import torch

    torch.set_num_threads(1)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer, loader, valid, test = prepared(model, dataset, data)
    built = time.perf_counter() - began
    trainer.model.pre_epoch_processing()
    trainer._train_epoch(Timed(loader, WARM_UP), 0)  # proofs and conversions
    for of in (valid, test):
        trainer._valid_epoch(of)
    if profile:
        with torch.profiler.profile() as found:
            trainer._train_epoch(Timed(loader, steps), 1)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=40, max_name_column_width=60))
        return {}
    timed = Timed(loader, steps)
    began = time.perf_counter()
    trainer.model.pre_epoch_processing()
    once = time.perf_counter() - began
    losses, _ = trainer._train_epoch(timed, 1)
    began = time.perf_counter()
    for of in (valid, test):
        trainer._valid_epoch(of)
    evaluating = time.perf_counter() - began
    step = statistics.median(timed.between)
    return {
        "built": built,
        "step": step,
        "evaluation": evaluating,
        "epoch": once + timed.start + step * len(loader) + evaluating,
        "loss": sum(losses) if isinstance(losses, tuple) else losses,
    }


def child(options: argparse.Namespace) -> None:
    """One process: in the copied tree, patched or not; prints its figures as its last line."""
    from smore_ext.compat import mmrec

    mmrec.fix_environment()
    sys.path.insert(0, os.getcwd())
    pieces = [piece for piece in mmrec.PIECES if piece not in options.without]
    report = mmrec.patch(pieces, os.getcwd()) if options.patched else None
    found = measured(options.models[0], options.dataset, options.data, options.steps, options.profile is not None)
    if report is not None:
        print(report, file=sys.stderr)
    print(json.dumps(found))


def run(tree: Path, data: Path, model: str, patched: bool, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        own, source = Path(folder), data / options.dataset
        shutil.copytree(tree, own / "src")
        (own / "data" / options.dataset).mkdir(parents=True)
        for file in source.iterdir():
            ours = own / "data" / options.dataset / file.name
            if width := dict(options.widths).get(file.stem):
                features = np.load(file)
                factor = np.random.default_rng(0).normal(size=(features.shape[1], int(width)))
                np.save(ours, (features @ factor / features.shape[1] ** 0.5).astype(features.dtype))
            else:
                ours.symlink_to(file.resolve())
        command = [sys.executable, "-m", "benchmarks.drop_in", str(own / "src"), "--child", "--models", model]
        command += ["--data", str(own / "data"), "-d", options.dataset, "--steps", str(options.steps)]
        command += ["--without", *options.without, "--patched"] * patched + ["--profile", model] * (
            options.profile is not None
        )
        here = str(Path(__file__).parents[1])
        places = os.environ | {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=own / "src", env=places, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{model}, {'patched' if patched else 'as is'}:\n{done.stderr[-3000:]}")
    if options.profile is not None:
        print(done.stdout, done.stderr[-4000:], sep="\n")
        return {}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def table(ratios: dict[str, list[dict[str, float]]]) -> str:
    lines = ["| time as is / under the patch | step | evaluation | epoch |", "|---|---|---|---|"]
    for model, pairs in ratios.items():
        cells = (", ".join(f"{pair[what]:.1f}" for pair in pairs) for what in ("step", "evaluation", "epoch"))
        lines.append(f"| {model} | {' | '.join(cells)} |")
    means = (
        statistics.geometric_mean(pair[what] for pairs in ratios.values() for pair in pairs)
        for what in ("step", "evaluation", "epoch")
    )
    return "\n".join([*lines, f"| geometric mean | {' | '.join(f'{mean:.2f}' for mean in means)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="the tree's src folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("-d", "--dataset", default="baby", help="one that the tree has settings for")
    parser.add_argument("--models", nargs="+", default=TEN_WITHOUT_LATTICE)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="PIECE", help="of the patch; for the same draws, sampler dropout"
    )
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument(
        "--widths", nargs="*", default=[], type=lambda text: tuple(text.split("=")), metavar="FILE=COLUMNS"
    )
    parser.add_argument("--profile", metavar="MODEL", help="the ops of this model's steps under the patch, then end")
    parser.add_argument("-o", "--output-dir", type=Path, help="raw seconds (drop-in.json) and the table")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--patched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    if options.profile is not None:
        run(options.tree, options.data, options.profile, True, options)
        return
    seconds: dict[str, list[dict[str, dict[str, float]]]] = {}
    ratios: dict[str, list[dict[str, float]]] = {}
    for model in options.models:
        for _ in range(options.pairs):
            was, now = (run(options.tree, options.data, model, patched, options) for patched in (False, True))
            seconds.setdefault(model, []).append({"as is": was, "patched": now})
            ratios.setdefault(model, []).append({what: was[what] / now[what] for what in was if what != "loss"})
            apart = abs(was["loss"] - now["loss"]) / abs(was["loss"])
            shown = {what: round(value, 2) for what, value in ratios[model][-1].items()}
            print(model, shown, f"losses of {options.steps} steps apart by {apart:.1e}", flush=True)
    print(table(ratios))
    if options.output_dir is not None:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        (options.output_dir / "drop-in.json").write_text(json.dumps(seconds, indent=1), encoding="utf-8")
        (options.output_dir / "drop-in.md").write_text(table(ratios) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
