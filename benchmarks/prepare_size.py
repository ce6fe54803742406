"""How `prepare` grows: generated dumps of Elec's shape, once and several times its interactions.

`python -m benchmarks.prepare_size --times 1,3,10 --json FILE` writes each dump (reviews with texts, JSON lines, gzip),
makes a folder of it in a process of its own, and prints processor time, wall clock and peak memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from smore_ext.environment import versions
from smore_ext.prepare import prepare
from smore_ext.training.files import write_text

USERS, ITEMS, REVIEWS = 192_403, 63_001, 1_689_188  # of Elec after its 5-core
WORDS = np.array([f"word{n}" for n in range(5000)])
BLOCK = 50_000  # reviews written at once
SECONDS = 1_400_000_000, 1_500_000_000


def write_dump(path: Path, times: int, seed: int = 1) -> int:
    """Reviews whose items are as unevenly liked as real ones; users grow with `times`, items do not. Their number."""
    rng = np.random.default_rng(seed)
    users, reviews = USERS * times, REVIEWS * times
    share = 1 / np.arange(1, ITEMS + 1) ** 0.7
    popular = np.cumsum(share / share.sum())
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        for begin in range(0, reviews, BLOCK):
            n = min(BLOCK, reviews - begin)
            who = np.arange(begin, begin + n) % users
            what = np.searchsorted(popular, rng.random(n)).clip(max=ITEMS - 1)
            rating, when = rng.integers(1, 6, n), rng.integers(*SECONDS, n)
            texts = WORDS[rng.integers(0, len(WORDS), (n, 12))]
            file.writelines(
                f'{{"reviewerID": "A{u:09d}", "asin": "B{i:08d}", "overall": {r}.0, "unixReviewTime": {t}, '
                f'"reviewText": "{" ".join(words)}"}}\n'
                for u, i, r, t, words in zip(who, what, rating, when, texts, strict=True)
            )
    return reviews


def run(dump: Path, folder: Path, told: Connection) -> None:
    begin = time.perf_counter()
    counts = prepare(dump, folder).manifest["counts"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    told.send(
        {
            "users": counts["users"],
            "items": counts["items"],
            "processor_s": used.ru_utime + used.ru_stime,
            "wall_s": time.perf_counter() - begin,
            "peak_bytes": used.ru_maxrss * 1024,
        }
    )


def measured(times: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        dump = Path(place) / "reviews.json.gz"
        reviews = write_dump(dump, times)
        context = get_context("spawn")
        told, telling = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(dump, Path(place) / "folder", telling))
        process.start()
        telling.close()
        try:
            found = told.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"prepare ended with exit code {process.exitcode}") from None
        process.join()
        return {"reviews": reviews, "dump_bytes": dump.stat().st_size, **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", default="1,3,10", help="multiples of Elec's interactions, with commas between")
    parser.add_argument("--json", type=Path, help="where figures are written")
    options = parser.parse_args()
    rows = []
    print(f"{'reviews':>12} {'users':>10} {'items':>8} {'processor':>10} {'a million':>10} {'wall':>8} {'peak':>9}")
    for times in map(int, options.times.split(",")):
        row = measured(times)
        rows.append(row)
        million = row["processor_s"] / row["reviews"] * 1e6
        print(
            f"{row['reviews']:12,} {row['users']:10,} {row['items']:8,} {row['processor_s']:8.1f} s {million:8.1f} s "
            f"{row['wall_s']:6.0f} s {row['peak_bytes'] / 1e9:6.2f} GB",
            flush=True,
        )
    if options.json is not None:
        write_text(
            options.json,
            json.dumps({"versions": versions(), "platform": platform.platform(), "runs": rows}, indent=2) + "\n",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
