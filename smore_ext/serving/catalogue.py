"""What a person sees of an item: its text, and its image. Taken from a folder of data where it has them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from smore_ext.data.dataset import DatasetError
from smore_ext.data.files import TEXTS, check_regular
from smore_ext.data.messages import shown
from smore_ext.prepare.content import IMAGES

FOLDER = "images"  # beside the texts


@dataclass(frozen=True)
class Catalogue:
    """Texts and image files by raw id."""

    texts: dict[str, str] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)

    def text(self, item: str | int) -> str | None:
        return self.texts.get(str(item))

    def image(self, item: str | int) -> Path | None:
        return self.images.get(str(item))


def open_catalogue(folder: Path | None, texts: Path | None = None, images: Path | None = None) -> Catalogue:
    """What a folder of data has, or what other places have in its stead.

    Args:
        folder: of the data set, in which `item_texts.jsonl` and `images/` are used if they are there.
        texts: JSON lines with `item` and `text`.
        images: a folder of files that are named by raw ids, `B07K.jpg`.

    Raises `DatasetError` for a line that is none of these, `OSError` for a place that is not there.
    """
    if folder is not None:
        texts = texts or _if_there(folder / TEXTS)
        images = images or _if_there(folder / FOLDER)
    return Catalogue(read_texts(texts) if texts else {}, _images(images) if images else {})


def read_texts(path: Path) -> dict[str, str]:
    """Texts by raw id; items whose text is empty have none. Raises `DatasetError` with file and line."""
    check_regular(path)
    out: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected UTF-8 text, got: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            item, text = row["item"], row["text"]
        except (ValueError, TypeError, KeyError):
            item = text = None
        if not isinstance(item, str | int) or not isinstance(text, str):
            raise DatasetError(f"{path}, line {number}: expected item and text in JSON, got {shown(line)}")
        if text:
            out[str(item)] = text
    return out


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder of images that are named by item")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGES and path.is_file()}


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
