"""Checkpoints of a run: safetensors files with JSON metadata, written so that a crash leaves the old file.

The best one holds the weights of the best validation epoch under the names of the model's state dict. The last one
holds all that the next epoch depends on: `model.<name>`, `optimizer.<parameter>.<moment>`, `rng.cpu` (and `rng.cuda`);
its metadata holds settings, progress and data fingerprint. The order of batches, the negatives and what a model redraws
follow from (seed, epoch), so no sampler state exists. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FORMAT = "smore_ext checkpoint 1"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the run."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` if the block succeeds; else `path` stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a killed process left is written over
    temporary.unlink(missing_ok=True)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Writes tensors and JSON-able metadata atomically."""
    write_tensors(path, tensors, {"format": FORMAT, "smore_ext": json.dumps(metadata)})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file atomically."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def load(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a checkpoint. Raises `CheckpointError`: missing, damaged, of another kind."""
    return _open(path, lambda file: {name: file.get_tensor(name) for name in file.keys()}, device)  # noqa: SIM118


def load_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a checkpoint, without reading its tensors."""
    return _open(path, lambda file: {})[1]


def pack(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """The tensors of `last`: weights, optimizer moments by parameter name, states of torch's generators."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if optimizer is not None:
        for name, parameter in _trainable(model):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def unpack(tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Puts what `pack` returned back into a model, its optimizer and torch's generators."""
    load_weights(model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    if optimizer is not None:
        state = {}
        for index, (name, _) in enumerate(_trainable(model)):
            prefix = f"optimizer.{name}."
            entry = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            # A parameter's name can be the start of another's ("a" and "a.b"): moments have no dot in theirs.
            entry = {key: value for key, value in entry.items() if "." not in key}
            if entry:
                state[index] = entry
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """`load_state_dict` with one line of error instead of a list. A buffer that is empty takes the stored shape."""
    for name, buffer in model.named_buffers():
        if not buffer.numel() and name in weights:
            owner, _, attribute = name.rpartition(".")
            like = weights[name]
            setattr(model.get_submodule(owner), attribute, torch.empty_like(like, device=buffer.device))
    own = model.state_dict()
    for name in sorted(set(own) | set(weights)):
        have = tuple(own[name].shape) if name in own else None
        came = tuple(weights[name].shape) if name in weights else None
        if have != came:
            raise CheckpointError(f"checkpoint does not fit the model: {name} is {came}, expected {have}")
    model.load_state_dict(weights)


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _open(
    path: Path, read: Callable[[Any], dict[str, Tensor]], device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: expected format {FORMAT!r}, got {header.get('format')!r}")
            return read(file), json.loads(header["smore_ext"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def _sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
