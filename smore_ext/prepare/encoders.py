"""Texts and images to features, by encoders of the user's: in batches, with progress, gone on with when stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from smore_ext.data.dataset import DatasetError
from smore_ext.training.files import replacing

CHUNK = 2048  # texts or images a file of what is done
BATCH = 64  # that an encoder gets at once

Told = Callable[[str], None]
T = TypeVar("T")


def encode_texts(texts: Sequence[str], model: str, partial: Path, tell: Told) -> np.ndarray:
    """Embeddings [N, D] float32 of texts, rows of zeros for empty ones.

    Args:
        model: a folder with a sentence-transformers model, or the name of one on this machine. Nothing is fetched.
        partial: a folder for what is done; a later call with the same texts and model goes on from it.

    Raises `ImportError` without sentence-transformers, `DatasetError` where the model is not there.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ImportError("a text encoder needs sentence-transformers: pip install 'smore-ext[text]'") from None
    try:
        encoder = SentenceTransformer(model, local_files_only=True)
    except Exception as error:  # whatever the library makes of a folder that is none of its own
        raise _no_model(model, "sentence-transformers", error) from None

    def rows_of(chunk: Sequence[str]) -> np.ndarray:
        rows = encoder.encode(list(chunk), batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
        rows = np.asarray(rows, dtype=np.float32)
        rows[[not text for text in chunk]] = 0
        return rows

    return _in_chunks(texts, lambda text: text, model, rows_of, "texts", partial, tell)


def encode_images(files: Mapping[str, Path], model: str, partial: Path, tell: Told) -> tuple[list[str], np.ndarray]:
    """(items, embeddings [N, D] float32) of image files by item, by a timm model without its classifier.

    Args:
        model: a folder with `config.json` and weights as timm saves them. Nothing is fetched.
        partial: as for texts; a file that changed is encoded anew.

    Raises `ImportError` without timm, `DatasetError` where the model is not there or a file is no image.
    """
    try:
        import timm
        import torch
        from PIL import Image
    except ImportError as error:
        raise ImportError(f"an image encoder needs {error.name}: pip install 'smore-ext[image]'") from None
    try:
        encoder = timm.create_model(f"local-dir:{model}", pretrained=True, num_classes=0).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(encoder), is_training=False)
    except Exception as error:  # whatever the library makes of a folder that is none of its own
        raise _no_model(model, "timm", error) from None

    def read(path: Path) -> torch.Tensor:
        try:
            with Image.open(path) as image:
                return transform(image.convert("RGB"))
        except Exception as error:  # a decoder may raise anything for a damaged file
            raise DatasetError(f"{path}: expected an image, got: {' '.join(str(error).split())[:200]}") from None

    def rows_of(chunk: Sequence[str]) -> np.ndarray:
        batches = [chunk[first : first + BATCH] for first in range(0, len(chunk), BATCH)]
        with torch.inference_mode():
            parts = [encoder(torch.stack([read(files[item]) for item in batch])) for batch in batches]
        return torch.cat(parts).float().numpy()

    def marked(item: str) -> str:
        found = files[item].stat()
        return f"{item} {found.st_size} {found.st_mtime_ns}"

    items = sorted(files)
    return items, _in_chunks(items, marked, model, rows_of, "images", partial, tell)


def _in_chunks(
    entries: Sequence[T], marked: Callable[[T], str], model: str, rows_of: Callable[[Sequence[T]], np.ndarray],
    kind: str, partial: Path, tell: Told,
) -> np.ndarray:  # fmt: skip
    """Rows of all entries, of which a chunk at a time is computed and kept under the digest of what it is made of."""
    parts = []
    for first in range(0, len(entries), CHUNK):
        chunk = entries[first : first + CHUNK]
        digest = hashlib.sha256("\0".join([model, *map(marked, chunk)]).encode()).hexdigest()[:24]
        file = partial / f"{digest}.npy"
        if not file.is_file():
            rows = rows_of(chunk)
            partial.mkdir(exist_ok=True)
            with replacing(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, rows, allow_pickle=False)
            tell(f"encoded {first + len(chunk):,} of {len(entries):,} {kind}")
        parts.append(np.load(file, allow_pickle=False))
    return np.concatenate(parts)


def _no_model(model: str, library: str, error: Exception) -> DatasetError:
    told = " ".join(str(error).split())[:200]
    return DatasetError(f"{model}: expected a {library} model on this machine, got: {told}")
