"""What prepare replaces and what it refuses to mix: others' files, ids and times of two kinds; ids that need quotes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dumps import ITEMS, read, recbole, separated, vectors
from safetensors import SafetensorError

from smore_ext import check
from smore_ext.data import DatasetError
from smore_ext.prepare import Rules, prepare
from smore_ext.prepare.__main__ import main
from smore_ext.training.files import replacing


@pytest.mark.parametrize(("column", "key"), [("user", "user_id"), ("item", "item_id")])
def test_ids_of_json_are_of_one_type(column: str, key: str, tmp_path: Path) -> None:
    rows = [{"user_id": f"u{n % 5}", "item_id": f"i{n // 5}"} for n in range(25)]
    for n in (3, 9):
        rows[n][key] = 7  # type: ignore[assignment]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = f"expected ids of one type as {column} in column {key}, got texts in 23 rows and numbers in 2"
    with pytest.raises(DatasetError, match=wanted):
        prepare(tmp_path / "x.jsonl", tmp_path / "x", Rules(k_core=1))
    assert not (tmp_path / "x").exists()


def test_seconds_and_milliseconds_are_not_mixed(tmp_path: Path) -> None:
    rows = [(f"u{n % 5}", f"i{n // 5}", 1_500_000_000 * (1000 if n == 3 else 1) + n) for n in range(25)]
    source = separated(tmp_path / "x.csv", ["user", "item", "time"], rows)
    with pytest.raises(
        DatasetError, match="expected seconds or milliseconds as times in column time, got both: 24 rows"
    ):
        prepare(source, tmp_path / "x", Rules(k_core=1))
    read(prepare(source, tmp_path / "x", Rules(k_core=1, time="_")).folder)


HOSTILE = [
    'a"b',
    '"quoted"',
    '""',
    '"',
    "a''b",
    "tab?",
    " spaced ",
    "ä\u2028b",
    "#1",
    '"half',
    "a,b;c|d",
    "-inf",
    "NULL",
]


def test_ids_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"user_id": user, "item_id": f"{item}!"} for user in HOSTILE for item in HOSTILE]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read(prepare(tmp_path / "x.jsonl", tmp_path / "x", Rules(k_core=1)).folder)
    assert set(data.user_ids or ()) == set(HOSTILE)
    assert set(data.item_ids or ()) == {f"{item}!" for item in HOSTILE}


def test_only_what_prepare_wrote_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = recbole(tmp_path)
    place = tmp_path / "precious"
    place.mkdir()
    (place / "thesis.tex").write_text("x")
    for _ in range(2):
        with pytest.raises(
            FileExistsError, match=r"expected a folder that prepare wrote.*got others' files in it: thesis.tex"
        ):
            prepare(source, place, overwrite=True)
        assert (place / "thesis.tex").read_text() == "x"
    (place / "thesis.tex").unlink()
    prepare(source, place, overwrite=True)
    first = (place / "precious.inter").read_bytes()
    prepare(source, place, Rules(seed=5), overwrite=True)
    assert (place / "precious.inter").read_bytes() != first
    np.save(place / "image_feat.npy", np.ones((2, 2)))  # the user's own
    with pytest.raises(FileExistsError, match="others' files in it: image_feat.npy"):
        prepare(source, place, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="expected a folder to overwrite, got a file"):
        prepare(source, tmp_path / "file", overwrite=True)
    assert main([str(source), "-o", str(place), "--vectors", "a=1", "--vectors", "a=2"]) == 2
    assert "expected each name once, got a, a" in capsys.readouterr().err


def test_check_knows_what_was_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = recbole(tmp_path)
    place = tmp_path / "x"
    lost = sorted(ITEMS)[:3]
    prepare(source, place, vectors={"image": vectors(tmp_path, "jsonl", [item for item in ITEMS if item not in lost])})
    assert (place / "image_missing.txt").read_text().splitlines() == lost
    check.main([str(place), "--ids", "mapped"])
    out = capsys.readouterr().out
    assert "features image: 3 items" in out and "have none of their own: they were filled in" in out
    assert "have those of another" not in out


def test_a_disk_that_is_full_is_named_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = recbole(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smore_ext.prepare.folder.write_interactions", full)
    assert main([str(source), "-o", str(tmp_path / "x")]) == 2
    assert f"No space left on device: '{tmp_path / 'x'}'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(OSError, match="No space left on device.*precious"), replacing(tmp_path / "precious"):
        full()
    with pytest.raises(OSError, match="precious: cannot be written: .*I/O error"), replacing(tmp_path / "precious"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
