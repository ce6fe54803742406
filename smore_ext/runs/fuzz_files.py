"""Fuzz target: files of data sets, settings and checkpoints with bytes changed.

    python -m smore_ext.testing.fuzz files

A file is read right or refused by an error of ours that is short and names it. Right is what a plain reading of the
same bytes gives, by the csv module and numpy, and a row a line where no field of the table was written over several;
it is asked only where the file was accepted. Of a checkpoint it is what was written.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from smore_ext.data import Dataset, DatasetError, Pairs, ReadOptions, files, load_dataset
from smore_ext.runs.config_files import load_preset, preset_names, resolve
from smore_ext.settings.config import RunConfig
from smore_ext.settings.fields import ConfigError
from smore_ext.testing.fuzz.target import Call, Fault
from smore_ext.training import checkpoint

LONGEST = 1500  # characters of an error; the path of the temporary folder is among them
N_USERS, N_ITEMS = 6, 8
TOKENS = (
    b'"', b'"', b'"', b'""', b"\t", b",", b";", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\0", b"\xff", b"\xef\xbb\xbf",
    b"\xe2\x80\xa8", b"-1", b"0", b"3", b"1.5", b"1e400", b"nan", b"inf", b"NA", b"1_0", b"99999999999999999999",
    b"userID", b"x_label", b"9" * 50_000, b"'", b"#", b"\\", b"{", b"[", b"&a ", b"*a", b": ", b"- ",
    b"!!python/object:os.system ", b"<<",
)  # fmt: skip


def draw(rng: random.Random) -> Call:
    """One changed file of one kind."""
    kind = rng.choice(sorted(KINDS))
    return KINDS[kind](rng, kind)


# --- kinds ---


def _table(rng: random.Random, kind: str) -> Call:
    separator = "," if kind == "csv" else rng.choice("\t\t\t,; ")
    name = files.CSV_TABLE if kind == "csv" else f"d{files.TABLE}"
    quoted = separator in ",;" and rng.random() < 0.5
    raw = rng.random() < 0.3
    content = changed(rng, _stray_quotes(rng, _table_bytes(rng, separator, quoted, raw), separator.encode()))
    packed = rng.random() < 0.15
    stored = {f"{name}{files.PACKED}": gzip.compress(content, mtime=0)} if packed else {name: content}
    options = ReadOptions(
        ids="raw" if raw else "index", overlap="earliest", field_separator=separator if rng.random() < 0.3 else None
    )
    return _loads(kind, stored, options, lambda data: _check_table(data, content, raw, separator))


def _packed(rng: random.Random, kind: str) -> Call:
    content = _table_bytes(rng, "\t", False, False)
    damaged = changed(rng, gzip.compress(content, mtime=0))
    return _loads(kind, {f"d{files.TABLE}{files.PACKED}": damaged}, ReadOptions(overlap="earliest"), lambda _: None)


def _split(rng: random.Random, kind: str) -> Call:
    content = changed(rng, _table_bytes(rng, "\t", False, False))
    options = ReadOptions(
        split=rng.choice(("random", "user_time", "time", "leave_one_out")), split_seed=rng.randrange(9)
    )

    def check(data: Dataset) -> None:
        pairs = [set(zip(*(column.tolist() for column in part), strict=True)) for part in _parts(data)]
        if any(pairs[a] & pairs[b] for a, b in ((0, 1), (0, 2), (1, 2))):
            raise Fault("a pair is in two splits")

    return _loads(kind, {f"d{files.TABLE}": content}, options, check)


def _features(rng: random.Random, kind: str) -> Call:
    dtype = rng.choice(("f4", "f8", "f2", "i4", ">f4"))
    values = np.arange(N_ITEMS * 3).reshape(N_ITEMS, 3).astype(dtype)
    content = changed(rng, _saved(lambda file: np.save(file, values, allow_pickle=False)))

    def check(data: Dataset) -> None:
        wanted = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float32)
        if not np.array_equal(data.features["image"].numpy(), wanted):
            raise Fault("features differ from those in the file")

    return _loads(kind, {f"d{files.TABLE}": _whole(), f"image{files.FEATURES}": content}, ReadOptions(), check)


def _graph(rng: random.Random, kind: str) -> Call:
    edges = np.array([(row, (row + step) % N_ITEMS) for row in range(N_ITEMS) for step in (0, 1)])
    parts: dict[str, Any] = {
        "row": edges[:, 0],
        "col": edges[:, 1],
        "weight": np.linspace(0, 1, len(edges)),
        "shape": [N_ITEMS] * 2,
    }
    save = np.savez_compressed if rng.random() < 0.3 else np.savez
    content = changed(rng, _saved(lambda file: save(file, **parts)))

    def check(data: Dataset) -> None:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            dense = np.zeros((N_ITEMS, N_ITEMS))
            np.add.at(dense, (stored["row"], stored["col"]), stored["weight"])
        if not np.allclose(data.graphs["image"].to_scipy().toarray(), dense, rtol=1e-6):
            raise Fault("the graph differs from that in the file")

    return _loads(kind, {f"d{files.TABLE}": _whole(), f"image{files.GRAPH}": content}, ReadOptions(), check)


def _ids(rng: random.Random, kind: str) -> Call:
    lines = ["asin\titemID", *(f"B{item}\t{item}" for item in rng.sample(range(N_ITEMS), N_ITEMS))]
    content = changed(rng, ("\n".join(lines) + "\n").encode())
    table = "userID\titemID\tx_label\n" + "".join(f"u{u}\tB{i}\t{split}\n" for u, i, split in ROWS)

    def check(data: Dataset) -> None:
        lines = [line.strip() for line in io.StringIO(content.decode("utf-8-sig"), newline=None) if line.strip()]
        stored = dict(line.split("\t" if "\t" in line else ",") for line in lines[1:])
        if data.item_ids is None or any(int(stored[raw]) != number for number, raw in enumerate(data.item_ids)):
            raise Fault("numbers differ from those in the file")

    return _loads(
        kind, {f"d{files.TABLE}": table.encode(), files.ID_MAPS["item"]: content}, ReadOptions(ids="raw"), check
    )


def _settings(rng: random.Random, kind: str) -> Call:
    values = load_preset(rng.choice(preset_names())).values | {"seeds": ["1", "2"], "split": "random"}
    content = changed(rng, yaml.safe_dump(values, default_flow_style=rng.choice((None, True, False))).encode())

    def run() -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.yaml"
            path.write_bytes(content)
            try:
                config = resolve({}, config_file=path)
            except ConfigError as error:
                return _refused(error)
            if RunConfig.from_dict(config.to_dict()).to_dict() != config.to_dict():
                raise Fault("settings differ after they were stored and read")
        return "read"

    return Call(kind, f"resolve({{}}, config_file=FILE)  # {_shown(content)}", run)


def _checkpoint(rng: random.Random, kind: str) -> Call:
    tensors = {"model.w": torch.arange(12.0).reshape(3, 4), "optimizer.w.step": torch.tensor(3.0)}
    metadata = {"epoch": 3, "settings": {"lr": 0.1, "seeds": [1, 2]}}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "c", tensors, metadata)
        content = changed(rng, (Path(folder) / "c").read_bytes())

    def run() -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.safetensors"
            path.write_bytes(content)
            try:
                stored, told = checkpoint.load(path)
            except checkpoint.CheckpointError as error:
                return _refused(error, folder)
        if told != metadata or stored.keys() != tensors.keys():
            raise Fault(f"metadata or names differ from those written: {told}, {sorted(stored)}")
        if not all(torch.equal(stored[name], value) for name, value in tensors.items()):
            raise Fault("tensors differ from those written")
        return "read"

    return Call(kind, f"checkpoint.load(FILE)  # {_shown(content)}", run)


KINDS: Mapping[str, Callable[[random.Random, str], Call]] = {
    "checkpoint": _checkpoint,
    "csv": _table,
    "gz": _packed,
    "ids": _ids,
    "inter": _table,
    "npy": _features,
    "npz": _graph,
    "split": _split,
    "yaml": _settings,
}
ROWS = [(user, (user + step) % N_ITEMS, min(2, max(0, step - 2))) for user in range(N_USERS) for step in range(5)]


# --- how each is made, changed, read ---


def changed(rng: random.Random, content: bytes) -> bytes:
    """Up to three changes of some bytes."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at = rng.randrange(len(content) + 1)
        size = rng.choice((1, 1, 2, 5, 40))
        token = rng.choice(TOKENS)
        content = rng.choice(
            (
                content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
                content[:at] + token + content[at:],
                content[:at] + token + content[at + size :],
                content[:at] + content[at + size :],
                content[:at],
                content[:at] + content[at - size : at] + content[at:],
                content + content[at:],
            )
        )
    return content


def _stray_quotes(rng: random.Random, content: bytes, separator: bytes) -> bytes:
    """A quote at the begin or the end of up to two fields, in a third of the calls."""
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
        ends = [at for at in range(len(content)) if content[at : at + 1] in (separator, b"\n")]
        at = rng.choice(ends) + rng.choice((0, 1))
        content = content[:at] + b'"' + content[at:]
    return content


def _table_bytes(rng: random.Random, separator: str, quoted: bool, raw: bool) -> bytes:
    text = io.StringIO()
    quoting = csv.QUOTE_MINIMAL if separator in ",;" else csv.QUOTE_NONE
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=rng.choice(("\n", "\n", "\r\n")))
    writer.writerow(["userID", "itemID", "x_label", "title", "timestamp"])
    for number, (user, item, label) in enumerate(ROWS):
        title = rng.choice(("tube", "5 in, tube", 'a "tube"', "two\nlines", "")) if quoted else "tube"
        ids = (f"u{user}", f"B{item}") if raw else (user, item)
        writer.writerow([*ids, label, title, 1000 + number])
    return text.getvalue().encode()


def _whole() -> bytes:
    return ("userID\titemID\tx_label\n" + "".join(f"{u}\t{i}\t{split}\n" for u, i, split in ROWS)).encode()


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _loads(kind: str, contents: Mapping[str, bytes], options: ReadOptions, check: Callable[[Dataset], None]) -> Call:
    """Loading a folder of those files."""

    def run() -> str:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in contents.items():
                (Path(folder) / name).write_bytes(content)
            try:
                data = load_dataset(folder, options=options)
            except DatasetError as error:
                return _refused(error, folder)
            check(data)
        return "read"

    told = ", ".join(f"{name}: {_shown(content)}" for name, content in contents.items())
    return Call(kind, f"load_dataset(FOLDER, options={options})  # {told}", run)


def _refused(error: Exception, folder: str = "") -> str:
    if len(str(error)) > LONGEST:
        raise Fault(f"an error of {len(str(error)):,} characters: {str(error)[:300]}...")
    if folder not in str(error):
        raise Fault(f"an error that names no file: {error}")
    return "refused"


def _shown(content: bytes) -> str:
    return f"{content[:1500]!r}" + "..." * (len(content) > 1500)


def _parts(data: Dataset) -> tuple[Pairs, ...]:
    return (data.train, data.valid, data.test)


def _whole_lines(text: str, separator: str, width: int) -> int:
    """Lines after the header that have a row's number of fields by themselves, quotes aside."""
    _, *others = (line for line in io.StringIO(text, newline=None) if line.strip(" \r\n\t".replace(separator, "")))
    return sum(line.count(separator) == width - 1 for line in others)


def _check_table(data: Dataset, content: bytes, raw: bool, separator: str) -> None:
    """What a plain reading of the table gives, repeated pairs in their first split."""
    text = content.decode("utf-8-sig")
    quoting = csv.QUOTE_MINIMAL if separator in ",;" else csv.QUOTE_NONE
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)]
    header, *rows = [row for row in rows if any(field.strip() for field in row) or len(row) > 1]
    if (n_lines := _whole_lines(text, separator, len(header))) > len(rows):
        raise Fault(f"{len(rows)} rows are read from {n_lines} lines that are rows")
    plain = [name.split(":")[0].strip().lower().replace("_", "").removesuffix("id") for name in header]
    columns = [plain.index(name) for name in ("user", "item", "xlabel")]
    wanted: dict[tuple[object, object], int] = {}
    for row in rows:
        user, item, label = (row[place] for place in columns)
        pair = (user, item) if raw else (int(float(user)), int(float(item)))
        wanted[pair] = min(wanted.get(pair, 2), int(float(label)))
    trained = {user for (user, _), label in wanted.items() if label == 0}
    wanted = {pair: label for pair, label in wanted.items() if label == 0 or pair[0] in trained}
    found: dict[tuple[object, object], int] = {}
    for label, (users, items) in enumerate((data.train, data.valid, data.test)):
        for user, item in zip(users.tolist(), items.tolist(), strict=True):
            named = (data.user_ids[user], data.item_ids[item]) if data.user_ids and data.item_ids else (user, item)
            found[named] = label
    if found != wanted:
        raise Fault(
            f"pairs differ: read {sorted(found.items(), key=str)[:50]}, expected {sorted(wanted.items(), key=str)[:50]}"
        )
