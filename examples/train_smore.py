"""Train SMORE through the Python API and recommend for a user.

python examples/train_smore.py               the built-in data set, three short epochs
python examples/train_smore.py data/baby     a folder as docs/spec.md, section 4 has it; settings as below
"""

import sys
import tempfile
from pathlib import Path

from smore_ext import builtin_dataset, load_dataset, runs
from smore_ext.training.events import EpochDone, Event

USER = 5


def print_epoch(event: Event) -> None:
    """A listener: the loop itself prints nothing."""
    if isinstance(event, EpochDone):
        record, recall = event.record, event.record["validation"]["recall@20"]
        print(f"epoch {record['epoch']}: loss {record['loss']['loss']:.4f}, Recall@20 {recall:.4f}")


def main() -> None:
    dataset = load_dataset(sys.argv[1]) if len(sys.argv) > 1 else builtin_dataset(n_users=500, n_items=400)
    print(dataset)
    settings = {"model": "SMORE", "epochs": 3, "batch_size": 512, "knn_k": 10, "n_ui_layers": 2, "seed": 1}
    config = runs.resolve(settings)  # names, types and bounds are checked here; the rest is at its default

    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        result = runs.train(config, dataset, run_dir, [print_epoch])
        print(f"best epoch {result['best_epoch']}, protocol {result['protocol']['name']}")
        print(f"test Recall@20 {result['test']['recall@20']:.4f}")

        run = runs.load_run(run_dir, dataset=dataset)  # weights of the best validation epoch
        for item in run.recommend([USER], k=5)[USER]:
            print(f"user {USER}: item {item.item}, score {item.score:.3f}")


if __name__ == "__main__":
    main()
