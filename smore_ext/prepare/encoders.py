"""Texts and images to features, by encoders of the user's: in batches, with progress, gone on with when stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from smore_ext.data.dataset import DatasetError
from smore_ext.prepare.files import model_identity
from smore_ext.training.files import replacing

CHUNK = 2048  # texts or images a file of what is done
BATCH = 64  # that an encoder gets at once

Told = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """An encoder that is there.

    Attributes:
        given: what the user calls it.
        folder: where it lies.
        library, version: what runs it.
        files: `files.model_identity` of the folder.
    """

    given: str
    folder: Path
    library: str
    version: str
    files: dict[str, Any]

    def about(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"encoder": self.given, "encoder_files": self.files}


def find_text_encoder(model: str) -> Encoder:
    """A folder with a sentence-transformers model, or one by the name that it was fetched by. Nothing is fetched.

    Raises `ImportError` without sentence-transformers, `DatasetError` where the model is not there.
    """
    try:
        import sentence_transformers
    except ImportError:
        raise ImportError("a text encoder needs sentence-transformers: pip install 'smore-ext[text]'") from None
    folder = Path(model) if Path(model).is_dir() else _fetched(model)
    return _encoder(model, folder, "sentence-transformers", sentence_transformers, ("modules.json", "config.json"))


def find_image_encoder(model: str) -> Encoder:
    """A folder with `config.json` and weights as timm saves them. Nothing is fetched.

    Raises `ImportError` without timm, `DatasetError` where the model is not there.
    """
    try:
        import PIL  # noqa: F401  reads the images
        import timm
    except ImportError as error:
        raise ImportError(f"an image encoder needs {error.name}: pip install 'smore-ext[image]'") from None
    return _encoder(model, Path(model) if Path(model).is_dir() else None, "timm", timm, ("config.json",))


def _encoder(model: str, folder: Path | None, library: str, module: ModuleType, files: Sequence[str]) -> Encoder:
    if folder is None:
        raise _no_model(model, library, "no folder and no model of that name")
    if not any((folder / name).is_file() for name in files):
        raise _no_model(model, library, f"a folder without {' or '.join(files)}")
    return Encoder(model, folder, library, str(module.__version__), model_identity(folder))


def _fetched(model: str) -> Path | None:
    """The folder of a model that was fetched before; those of sentence-transformers have names without an owner too."""
    from huggingface_hub import snapshot_download  # what sentence-transformers itself fetches with

    for name in (model, f"sentence-transformers/{model}"):
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (OSError, ValueError):  # it is not there, or no name
            continue
    return None


def encode_texts(texts: Sequence[str], model: Encoder, partial: Path, tell: Told) -> np.ndarray:
    """Embeddings [N, D] float32 of texts, rows of zeros for empty ones.

    Args:
        model: as `find_text_encoder` finds it.
        partial: a folder for what is done; a later call with the same texts and model goes on from it.

    Raises `DatasetError` where the library cannot load the model.
    """
    from sentence_transformers import SentenceTransformer

    try:
        encoder = SentenceTransformer(str(model.folder), local_files_only=True)
    except Exception as error:  # whatever the library makes of a folder that is none of its own
        raise _no_model(model.given, model.library, error) from None

    def rows_of(chunk: Sequence[str]) -> np.ndarray:
        rows = encoder.encode(list(chunk), batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
        rows = np.asarray(rows, dtype=np.float32)
        rows[[not text for text in chunk]] = 0
        return rows

    return _in_chunks(texts, lambda text: text, model, rows_of, "texts", partial, tell)


def encode_images(files: Mapping[str, Path], model: Encoder, partial: Path, tell: Told) -> tuple[list[str], np.ndarray]:
    """(items, embeddings [N, D] float32) of image files by item, by a timm model without its classifier.

    Args:
        model: as `find_image_encoder` finds it.
        partial: as for texts; a file that changed is encoded anew.

    Raises `DatasetError` where the library cannot load the model or a file is no image.
    """
    import timm
    import torch
    from PIL import Image

    try:
        encoder = timm.create_model(f"local-dir:{model.folder}", pretrained=True, num_classes=0).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(encoder), is_training=False)
    except Exception as error:  # whatever the library makes of a folder that is none of its own
        raise _no_model(model.given, model.library, error) from None

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
    entries: Sequence[T], marked: Callable[[T], str], model: Encoder, rows_of: Callable[[Sequence[T]], np.ndarray],
    kind: str, partial: Path, tell: Told,
) -> np.ndarray:  # fmt: skip
    """Rows of all entries, of which a chunk at a time is computed and kept under the digest of what it is made of."""
    parts = []
    for first in range(0, len(entries), CHUNK):
        chunk = entries[first : first + CHUNK]
        digest = hashlib.sha256("\0".join([model.files["sha256"], *map(marked, chunk)]).encode()).hexdigest()[:24]
        file = partial / f"{digest}.npy"
        if not file.is_file():
            rows = rows_of(chunk)
            partial.mkdir(exist_ok=True)
            with replacing(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, rows, allow_pickle=False)
            tell(f"encoded {first + len(chunk):,} of {len(entries):,} {kind}")
        parts.append(np.load(file, allow_pickle=False))
    return np.concatenate(parts)


def _no_model(model: str, library: str, error: Exception | str) -> DatasetError:
    told = " ".join(str(error).split())[:200]
    return DatasetError(f"{model}: expected a {library} model on this machine, got: {told}")
