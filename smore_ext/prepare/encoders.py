"""Texts to features, by a sentence encoder of the user's: in batches, with progress, and gone on with when stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from smore_ext.data.dataset import DatasetError
from smore_ext.training.files import replacing

CHUNK = 2048  # texts a file


def encode_texts(texts: Sequence[str], model: str, partial: Path, tell: Callable[[str], None]) -> np.ndarray:
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
        told = " ".join(str(error).split())[:200]
        raise DatasetError(f"{model}: expected a sentence-transformers model on this machine, got: {told}") from None
    parts = []
    chunks = [texts[first : first + CHUNK] for first in range(0, len(texts), CHUNK)]
    for number, chunk in enumerate(chunks):
        digest = hashlib.sha256("\0".join([model, *chunk]).encode()).hexdigest()[:24]
        file = partial / f"{digest}.npy"
        if not file.is_file():
            rows = encoder.encode(list(chunk), batch_size=64, show_progress_bar=False, convert_to_numpy=True)
            rows = np.asarray(rows, dtype=np.float32)
            rows[[not text for text in chunk]] = 0
            partial.mkdir(exist_ok=True)
            with replacing(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, rows, allow_pickle=False)
            tell(f"encoded {min((number + 1) * CHUNK, len(texts)):,} of {len(texts):,} texts")
        parts.append(np.load(file, allow_pickle=False))
    return np.concatenate(parts)
