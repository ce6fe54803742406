"""The benchmark of a foreign tree: which batches it times, and its means."""

from __future__ import annotations

from benchmarks.drop_in import Timed, table


class Loader:
    pr = inter_pr = 0

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> int:
        self.pr += 1
        return self.pr


def test_a_loader_is_begun_anew_after_the_batches_that_are_timed() -> None:
    timed = Timed(Loader(), 3)
    assert list(timed) == [1, 2, 3] and len(timed.between) == 3 and len(timed) == 5
    assert list(timed) == [1, 2, 3] and timed.pr == 0


def test_means_are_geometric_over_models_and_pairs() -> None:
    pairs = {
        "A": [{"step": 1.0, "evaluation": 4.0, "epoch": 2.0}],
        "B": [{"step": 4.0, "evaluation": 4.0, "epoch": 8.0}],
    }
    assert table(pairs).splitlines()[-1] == "| geometric mean | 2.00 | 4.00 | 4.00 |"
