"""A prepared folder: interactions in the form of MMRec, raw ids, features with what is missing, and a manifest."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smore_ext.data.dataset import DatasetError
from smore_ext.data.files import FEATURES, ID_MAPS, MANIFEST, MISSING, OF_USERS, TABLE, TEXTS
from smore_ext.data.missing import Filled, fill
from smore_ext.environment import versions
from smore_ext.prepare.content import aligned, images_of, texts_of, vectors_of
from smore_ext.prepare.database import Database
from smore_ext.prepare.encoders import encode_images, encode_texts, find_image_encoder, find_text_encoder
from smore_ext.prepare.files import file_identity, files_identity
from smore_ext.prepare.place import check_place
from smore_ext.prepare.rules import Interactions, Rules, select
from smore_ext.prepare.sources import open_source
from smore_ext.training.files import naming

Told = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What was written: the folder, and its manifest as a dictionary."""

    folder: Path
    manifest: dict[str, Any]


def prepare(
    source: Path,
    output: Path,
    rules: Rules | None = None,
    *,
    items: Path | None = None,
    text_columns: Sequence[str] = (),
    text_encoder: str | None = None,
    images: Path | None = None,
    image_encoder: str | None = None,
    vectors: Mapping[str, Path] | None = None,
    filled: Filled = "mean",
    memory: str = "1GB",
    overwrite: bool = False,
    tell: Told = lambda _: None,
) -> Prepared:
    """Makes a folder that training reads from a table of interactions; all of it, or nothing.

    Args:
        source: the interactions: csv, tsv, .inter, .dat, JSON lines, parquet, packed or not (`sources.py`).
        output: the folder; its name becomes that of the data set.
        rules: which interactions count, and how they are split.
        items: a table of the items' texts.
        text_columns: its columns that make the text; else those that have known names.
        text_encoder: a folder with a sentence-transformers model, or its name where it is on this machine; None
            leaves the texts as they are, in `item_texts.jsonl`.
        images: a folder of image files that are named by item, `B07K.jpg`.
        image_encoder: a folder with a timm model, which makes `image_feat.npy` of them.
        vectors: features by name: a parquet or JSON lines table of an id and a list of numbers, or of an id and a
            column a number; an `.npy` with the ids, one a line, in the `.txt` of the same name; or a folder with an
            `.npy` an item, named by its id.
        filled: what items without a text or vector get: "mean" or "neighbours" (`smore_ext.data.missing`). They are
            listed in `<name>_missing.txt`.
        memory: what DuckDB may use before it goes on on the disk.
        overwrite: a folder that is there, with nothing in it but what `prepare` wrote, is replaced when the new one is
            complete.
        tell: called with a line as each part is done.

    Raises `DatasetError`, `FileExistsError`, `ImportError` for what is not installed.
    """
    rules, begin = rules or Rules(), time.perf_counter()
    for flag, value in (("--text-columns", text_columns), ("--text-encoder", text_encoder)):
        if value and items is None:
            raise DatasetError(f"{flag}: expected --items FILE with the texts")
    made = {"text"} if text_encoder else set()
    if (images is None) != (image_encoder is None):
        raise DatasetError("images: expected a folder of images and an encoder for them, got one of both")
    _check_names(vectors or {}, made | ({"image"} if images else set()))
    for path in (source, items, images, *(vectors or {}).values()):
        if path is not None and path.resolve().is_relative_to(output.resolve()):
            raise DatasetError(f"{path}: expected to lie outside {output}, which is written as a whole")
    check_place(output, overwrite)
    of_texts = find_text_encoder(text_encoder) if text_encoder else None  # before anything that takes its time
    of_images = find_image_encoder(image_encoder) if image_encoder else None
    partial = output.parent / f".{output.name}.encoding"
    output.parent.mkdir(parents=True, exist_ok=True)
    with naming(output), tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        place, scratch = Path(temporary) / "folder", Path(temporary) / "scratch"
        place.mkdir()
        scratch.mkdir()
        with Database(scratch, memory) as database:
            table = open_source(database, source, scratch, rules.columns)
            described = open_source(database, items, scratch) if items is not None else None
            data = select(database, table, rules)
            tell(
                f"interactions: {len(data.users):,} of {data.counts['read']:,}, {len(data.user_ids):,} users, "
                f"{len(data.item_ids):,} items"
            )
            write_interactions(place, output.name, data)
            sources = {"interactions": file_identity(source)}
            features: dict[str, Any] = {}
            if described is not None:
                found = texts_of(database, described, data.item_ids, text_columns, rules.item)
                sources["items"] = file_identity(described.path)
                write_texts(place, data.item_ids, found.texts)
                there = sum(map(bool, found.texts))
                tell(f"texts: {there:,} of {len(found.texts):,} items, from {', '.join(found.columns)}")
                features["text"] = {"columns": found.columns, "items_with_text": there}
                if of_texts is not None:
                    rows = encode_texts(found.texts, of_texts, partial, tell)
                    absent = np.array([not text for text in found.texts])
                    written = write_features(place, "text", rows, absent, data, filled)
                    features["text"] |= {**of_texts.about(), **written}
            if images is not None and of_images is not None:
                files = images_of(images, data.item_ids)
                ids, made_of = encode_images(files, of_images, partial, tell)
                rows, absent = aligned(images, ids, made_of, data.item_ids)
                sources["images"] = files_identity(images, list(files.values()))
                written = write_features(place, "image", rows, absent, data, filled)
                features["image"] = {**of_images.about(), **written}
            for name, path in (vectors or {}).items():
                rows, absent = vectors_of(database, path, scratch, data.item_ids, rules.item)
                sources[name] = file_identity(path)
                features[name] = write_features(place, name, rows, absent, data, filled)
                zero = int((~rows.any(axis=1) & ~absent).sum())
                tell(
                    f"{name}: {int((~absent).sum()):,} of {len(rows):,} items, {rows.shape[1]} wide"
                    + (f"; {zero:,} of them are all zero, which counts as given" if zero else "")
                )
        manifest = {
            "format": "smore_ext prepared 1",
            "versions": {
                **versions(), "duckdb": database.version,
                **{encoder.library: encoder.version for encoder in (of_texts, of_images) if encoder},
            },
            "sources": sources,
            "rules": asdict(rules),
            "counts": {
                **data.counts, "users": len(data.user_ids), "items": len(data.item_ids),
                **{name: int((data.labels == k).sum()) for k, name in enumerate(("train", "validation", "test"))},
            },
            "features": features,
        }  # fmt: skip
        (place / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        before = Path(temporary) / "before"
        if output.exists():
            output.rename(before)
        try:
            place.rename(output)
        except OSError:
            if before.exists():
                before.rename(output)
            raise
    shutil.rmtree(partial, ignore_errors=True)
    tell(f"{output}: {time.perf_counter() - begin:.1f} s")
    return Prepared(output, manifest)


def _check_names(vectors: Mapping[str, Path], made: Set[str]) -> None:
    """Names of features are those that are read again, and none that is `made` here."""
    for name in vectors:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == OF_USERS or name in made:
            raise DatasetError(
                f"vectors: expected a name of letters, digits, '_' and '-' that no other features have, got {name!r}"
            )


def write_interactions(place: Path, name: str, data: Interactions) -> None:
    """`<name>.inter` and the maps of raw ids."""
    import pandas

    columns: dict[str, Any] = {"userID": data.users, "itemID": data.items}
    if data.ratings is not None:
        columns["rating"] = data.ratings
    if data.times is not None:
        columns["timestamp"] = data.times
    frame = pandas.DataFrame(columns | {"x_label": data.labels})
    frame.to_csv(place / f"{name}{TABLE}", sep="\t", index=False)
    for kind, ids in (("user", data.user_ids), ("item", data.item_ids)):
        with (place / ID_MAPS[kind]).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow([f"{kind}_id", f"{kind}ID"])
            writer.writerows((raw, number) for number, raw in enumerate(ids))


def write_texts(place: Path, ids: Sequence[str], texts: Sequence[str]) -> None:
    """A line an item, by number."""
    with (place / TEXTS).open("w", encoding="utf-8") as file:
        for raw, text in zip(ids, texts, strict=True):
            file.write(json.dumps({"item": raw, "text": text}, ensure_ascii=False) + "\n")


def write_features(
    place: Path, name: str, rows: np.ndarray, absent: np.ndarray, data: Interactions, filled: Filled
) -> dict[str, Any]:
    """`<name>_feat.npy`, and where some are missing `<name>_missing.txt`; what the manifest says of them."""
    if absent.all():
        raise DatasetError(f"{name}: expected features of some of the {len(rows):,} items, got none of theirs")
    train = data.labels == 0
    pairs = torch.from_numpy(data.users[train]), torch.from_numpy(data.items[train])
    table = fill(torch.from_numpy(rows), torch.from_numpy(absent), *pairs, len(data.user_ids), filled)
    np.save(place / f"{name}{FEATURES}", table.numpy(), allow_pickle=False)
    if absent.any():
        lost = [data.item_ids[item] for item in np.flatnonzero(absent)]
        (place / f"{name}{MISSING}").write_text("\n".join(lost) + "\n", encoding="utf-8")
    return {"shape": list(rows.shape), "missing": int(absent.sum()), "filled": filled if absent.any() else None}
