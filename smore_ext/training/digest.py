"""A digest that tells whether tensors are, bit for bit, those that were written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_WORDS = 1024  # 64-bit words that are summed to one: 8 KiB


def digest_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b over names, dtypes, shapes and contents of contiguous CPU tensors, in the order of names; 32 hex digits.

    Of each whole 8 KiB of a tensor it hashes the sum of the words, modulo 2^64: any one flipped bit, a lost page or
    blocks that changed places alter it, at the speed of memory (hashing all bytes takes as long as writing them).
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        if not tensor.numel():  # torch cannot view an empty tensor as bytes
            continue
        content = tensor.reshape(-1).view(torch.uint8).numpy()
        whole = len(content) // (8 * _WORDS) * (8 * _WORDS)
        digest.update(content[:whole].view("<i8").reshape(-1, _WORDS).sum(axis=1, dtype=np.int64).tobytes())
        digest.update(content[whole:])
    return digest.hexdigest()
