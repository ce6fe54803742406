"""Checkpoints of a run: safetensors files with JSON metadata, each taking the old one's place when it is whole.

The best one holds the weights of the best validation epoch under the names of the model's state dict. The last one
holds all that the next epoch depends on: `model.<name>`, `optimizer.<parameter>.<moment>`, `rng.cpu` (and `rng.cuda`);
its metadata (`metadata.py`) hold settings, progress and data fingerprint. The order of batches, the negatives and what
a model redraws follow from (seed, epoch), so no sampler state exists. Nothing is pickled. Digests of tensors and
metadata are in the header, and every tensor's name, shape and dtype are compared before the first is used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from smore_ext.models import Recommender
from smore_ext.training.digest import digest_tensors, digest_text
from smore_ext.training.files import check_regular, replacing
from smore_ext.training.optimizers import state_like

FORMAT = "smore_ext checkpoint 1"
_KEYS = {"format", "smore_ext"}  # of the header; versions before 0.2 had no digests
_DIGESTS = {"smore_ext_digest", "tensors_digest"}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that does not fit the run."""


class Misfit(CheckpointError):
    """Tensors that are not those of the model; the message says which."""


@contextmanager
def _of_file(path: Path | None) -> Iterator[None]:
    """Says of which file a `Misfit` is."""
    try:
        yield
    except Misfit as error:
        raise CheckpointError(f"{path or 'checkpoint'} does not fit the model: {error}") from None


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Writes tensors and JSON-able metadata atomically, with digests of both."""
    there = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(metadata)
    digests = {"smore_ext_digest": digest_text(text), "tensors_digest": digest_tensors(there)}
    write_tensors(path, there, {"format": FORMAT, "smore_ext": text, **digests})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file atomically."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and metadata of a checkpoint.

    Raises `CheckpointError`: missing, not readable, damaged (a digest tells, but for files of versions before 0.2), of
    another kind.
    """
    return _open(path, with_tensors=True)


def load_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a checkpoint, without reading its tensors."""
    return _open(path, with_tensors=False)[1]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, without what the data set holds already (`Recommender.of_data`)."""
    of_data = _of_data(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in of_data}


def _of_data(model: nn.Module) -> Collection[str]:
    return model.of_data() if isinstance(model, Recommender) else ()


def pack(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """The tensors of `last`: weights, optimizer moments by parameter name, states of torch's generators."""
    tensors = {f"model.{name}": tensor for name, tensor in weights_of(model).items()}
    if optimizer is not None:
        for name, parameter in _trainable(model):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return tensors


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[str]:
    """Names of the parameters that the optimizer holds moments of: those that a step has reached."""
    return [name for name, parameter in _trainable(model) if optimizer is not None and optimizer.state.get(parameter)]


def unpack(
    tensors: dict[str, Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    stepped: Collection[str] | None = None,
    path: Path | None = None,
) -> None:
    """Puts what `pack` returned back into a model, its optimizer and torch's generators, after all of it was checked.

    `stepped`: the parameters whose moments must be there; None where that is not known. `path`: for messages. Raises
    `CheckpointError` for a tensor that is missing, unknown, or of another shape or dtype.
    """
    weights = _with_data(model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    moments = {k: v for k, v in tensors.items() if k.startswith("optimizer.")}
    others = {k: v for k, v in tensors.items() if not k.startswith(("model.", "optimizer."))}
    generators = {"rng.cpu": torch.get_rng_state()}
    if "rng.cuda" in others:  # a run may go on where there is no GPU
        generators["rng.cuda"] = torch.cuda.get_rng_state() if torch.cuda.is_available() else others["rng.cuda"]
    with _of_file(path):
        _check_weights(model, weights)
        state = {} if optimizer is None else _checked_state(moments, model, stepped)
        if optimizer is None and moments:
            raise _misfit(next(iter(moments)), "there", "nothing, as this model has no optimizer")
        _check_tensors(others, generators)

    load_weights(model, weights, path)
    if optimizer is not None:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    try:
        torch.set_rng_state(others["rng.cpu"])
        if "rng.cuda" in others and torch.cuda.is_available():
            torch.cuda.set_rng_state(others["rng.cuda"])
    except RuntimeError as error:
        raise CheckpointError(f"checkpoint holds no state of a generator: {str(error).splitlines()[0]}") from None


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path | None = None) -> None:
    """`load_state_dict` with one line of error instead of a list; what is of the data may be missing.

    `path`: of the file, for messages.
    """
    weights = _with_data(model, weights)
    with _of_file(path):
        _check_weights(model, weights)
        try:
            model.load_state_dict(weights)
        except (RuntimeError, ValueError, IndexError) as error:  # of what a model makes of its buffers
            raise Misfit(str(error).splitlines()[0]) from None


def _with_data(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights, and what they lack of the data: of a run it is the same, as its fingerprint is compared."""
    own = model.state_dict()
    return {name: own[name] for name in _of_data(model)} | weights


def _check_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    own = model.state_dict()
    for name, buffer in model.named_buffers():
        if not buffer.numel() and name in own and name in weights:
            own[name] = torch.empty(weights[name].shape, dtype=buffer.dtype, device="meta")
    _check_tensors(weights, own)


def _checked_state(
    moments: dict[str, Tensor], model: nn.Module, stepped: Collection[str] | None
) -> dict[int, dict[str, Tensor]]:
    """What the optimizer holds, by the place of the parameter among those that are trained."""
    state, expected = {}, {}
    for index, (name, parameter) in enumerate(_trainable(model)):
        prefix = f"optimizer.{name}."
        # A parameter's name can be the start of another's ("a" and "a.b"): moments have no dot in theirs.
        entry = {k.removeprefix(prefix): v for k, v in moments.items() if k.rpartition(".")[0] == prefix[:-1]}
        if entry if stepped is None else name in stepped:
            expected |= {prefix + key: like for key, like in state_like(parameter).items()}
            state[index] = entry
    _check_tensors(moments, expected)
    return state


def _check_tensors(came: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises `CheckpointError` unless both hold the same names, each with the same shape and dtype."""
    for name in sorted(came.keys() | expected.keys()):
        got, wanted = came.get(name), expected.get(name)
        shapes = tuple(None if tensor is None else tuple(tensor.shape) for tensor in (got, wanted))
        if got is None or wanted is None or shapes[0] != shapes[1]:
            raise _misfit(name, *shapes)
        if got.dtype != wanted.dtype:
            raise _misfit(name, *(str(tensor.dtype).removeprefix("torch.") for tensor in (got, wanted)))


def _misfit(name: str, came: object, expected: object) -> Misfit:
    return Misfit(f"{name} is {came}, expected {expected}")


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _open(path: Path, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        check_regular(path)
        path.open("rb").close()  # safetensors calls a file that it may not read missing
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"{path}: expected format {FORMAT!r}, got {header.get('format')!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
        _check_digests(header, tensors if with_tensors else None)
        metadata = json.loads(header["smore_ext"])
        if not isinstance(metadata, dict):
            raise ValueError(f"expected metadata as names and values, got {type(metadata).__name__}")
        if header.keys() >= _DIGESTS and "progress" in metadata and "stepped" not in metadata:  # as old as digests
            raise ValueError("its metadata: expected stepped, got nothing")
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except CheckpointError:
        raise
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return tensors, metadata


def _check_digests(header: dict[str, str], tensors: dict[str, Tensor] | None) -> None:
    """Raises `ValueError` when the header, or tensors that were read, are not what was written."""
    if header.keys() == _KEYS:
        return
    if header.keys() != _KEYS | _DIGESTS:
        expected, got = (", ".join(sorted(keys)) for keys in (_KEYS | _DIGESTS, header))
        raise ValueError(f"expected {expected} in its header, got {got}")
    if header["smore_ext_digest"] != digest_text(header["smore_ext"]):
        raise ValueError("its metadata do not match their digest")
    if tensors is not None and header["tensors_digest"] != digest_tensors(tensors):
        raise ValueError("its tensors do not match their digest")
