"""Changed files are read right or refused; and the target that says so sees faults that are planted."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from smore_ext.data import arrays, lines, read
from smore_ext.runs import fuzz_files
from smore_ext.testing.fuzz import TARGETS, Fault
from smore_ext.testing.fuzz.target import generator_of, load_target
from smore_ext.training import checkpoint


def test_the_target_is_listed() -> None:
    assert load_target("files") is fuzz_files.draw and "files" in TARGETS


@pytest.mark.parametrize("kind", fuzz_files.KINDS)
def test_changed_files_are_read_right_or_refused(kind: str) -> None:
    outcomes = Counter(fuzz_files.KINDS[kind](generator_of(7, number), kind).run() for number in range(60))
    assert outcomes.keys() == {"read", "refused"}


def first_fault(kind: str, calls: int = 200) -> str:
    for number in range(calls):
        try:
            fuzz_files.KINDS[kind](random.Random(number), kind).run()
        except Fault as fault:
            return str(fault)
    return ""


def test_planted_faults_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lines, "check_quotes", lambda *_: None)
        assert "rows are read from" in first_fault("csv")
    with monkeypatch.context() as patch:
        patch.setattr(read, "read_features", lambda path: np.abs(arrays.read_features(path) - 1))
        assert first_fault("npy") == "features differ from those in the file"
    with monkeypatch.context() as patch:
        patch.setattr(read, "numbered", lambda column, ids, where: np.arange(len(column)) % len(ids))
        assert "pairs differ" in first_fault("inter")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "digest_tensors", lambda _: "the same")
        assert "differ from those written" in first_fault("checkpoint")
    with monkeypatch.context() as patch:
        patch.setattr(fuzz_files, "LONGEST", 60)
        assert "an error of" in first_fault("inter")
