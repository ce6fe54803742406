"""What the training loop, evaluation and commands expect of a model. `docs/new-model.md` shows it in use."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from itertools import chain
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from smore_ext import ops, reference
from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.notices import Occasion, ranking_notices
from smore_ext.models.table_linear import TableLinear

BACKENDS: dict[str, ModuleType] = {"native": ops, "reference": reference}

ModelType = TypeVar("ModelType", bound="Recommender")


class Batch(NamedTuple):
    """What a step is taken on: B train interactions.

    Attributes:
        users, positives: [B] int64.
        negatives: what the model's sampler drew for each: [B] int64, [B, n] for n > 1 a positive, or None.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor | None

    def triples(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three, [B] each, for losses that take one negative a positive; `ValueError` for any other batch."""
        if self.negatives is None or self.negatives.shape != self.users.shape:
            got = "none" if self.negatives is None else f"shape {tuple(self.negatives.shape)}"
            raise ValueError(f"loss: expected one negative a positive, of shape {tuple(self.users.shape)}, got {got}")
        return self.users, self.positives, self.negatives

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """A batch of changed parts."""
        negatives = None if self.negatives is None else change(self.negatives)
        return Batch(change(self.users), change(self.positives), negatives)


def setting(
    default: Any,
    *,
    loop: bool = False,
    changeable: bool = False,
    run_default: Callable[[], Any] | None = None,
    aliases: tuple[str, ...] = (),
) -> Any:
    """A field of a model's configuration with something to say beyond its type, default and docstring.

    Args:
        default: as in `name: type = default`.
        loop: the training loop decides: in a run the field takes the loop's setting of the same name.
        changeable: may change when a run is resumed, as it does not alter what an epoch computes.
        run_default: default of a run, where a bare configuration has `default`.
        aliases: what other frameworks call the setting; an error about such a name points here.
    """
    metadata = {"loop": loop, "changeable": changeable, "run_default": run_default, "aliases": aliases}
    return dataclasses.field(default=default, metadata=metadata)


def check_at_least(name: str, value: float, least: float) -> None:
    """A setting below its bound is an error that names it."""
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be at least {least} and finite, got {value}")


MOST_LAYERS = 100  # beyond all use: rows are alike long before


def check_layers(name: str, value: int, least: int = 0) -> None:
    """A number of layers that a run could finish, or an error that names it."""
    if not least <= value <= MOST_LAYERS:
        raise ValueError(f"{name} must be in {least}..{MOST_LAYERS}, got {value}")


def check_knn_k(k: int, dataset: Dataset) -> None:
    """More neighbours than items is an error that names the setting, not the op that would find them."""
    if k > dataset.n_items:
        raise ValueError(
            f"knn_k must be at most {dataset.n_items}, the items of {dataset.name!r}, got {k}: see --knn-k"
        )


def check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def distinct(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of `nodes` [n], ascending, and the place of each node among them [n].

    On a GPU, and in `torch.compile`, the first is padded to n entries with its last value, so that no shape depends on
    values: reading their number would make the host wait, which a captured step cannot, and break a compiled graph.
    """
    shapes_are_fixed = nodes.is_cuda or torch.compiler.is_compiling()
    return padded_distinct(nodes) if shapes_are_fixed else nodes.unique(return_inverse=True)


def padded_distinct(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """`distinct` with the first result padded to [n]; n >= 1."""
    ascending, order = nodes.sort(stable=True)
    first = torch.ones_like(ascending, dtype=torch.bool)
    first[1:] = ascending[1:] != ascending[:-1]
    slot = first.cumsum(0) - 1  # of each entry of `ascending`
    values = ascending[-1:].repeat(nodes.shape[0]).scatter_(0, slot, ascending)
    return values, torch.empty_like(slot).scatter_(0, order, slot)


def takes_parts(loss: Callable[[ModelType, Batch], Tensor]) -> Callable[..., Tensor]:
    """Lets `loss(batch)` be called as `loss(users, positives, negatives)` too."""

    @wraps(loss)
    def call(
        self: ModelType, users: Batch | Tensor, positives: Tensor | None = None, negatives: Tensor | None = None
    ) -> Tensor:
        if isinstance(users, Batch):
            return loss(self, users)
        if positives is None:
            raise TypeError("loss: expected a Batch, or users, positives and negatives, got users alone")
        return loss(self, Batch(users, positives, negatives))

    return call


def check_ids(model: str, name: str, ids: Tensor, n: int) -> None:
    """Ids are 0..n-1, or an error that names the first that is not.

    On a GPU the host does not wait for the answer: the device asserts it, which ends its context. In a step that is
    being captured or compiled nothing is checked: there the loop has checked the epoch's ids before.
    """
    if torch.compiler.is_compiling() or ids.is_meta or ids.numel() == 0:
        return
    if ids.is_cuda:
        if not torch.cuda.is_current_stream_capturing():
            torch._assert_async(((ids >= 0) & (ids < n)).all(), f"{model}.loss: {name} must be in 0..{n - 1}")
        return
    low, high = torch.aminmax(ids)
    if low < 0 or high >= n:
        position = int(((ids < 0) | (ids >= n)).flatten().nonzero()[0])
        raise IndexError(
            f"{model}.loss: {name} must be in 0..{n - 1}, got {int(ids.flatten()[position])} at position {position}"
        )


def _check_form(model: Recommender, batch: Batch) -> None:
    """Raises `TypeError` or `ValueError` for what is no batch of ids."""
    place, one = f"{type(model).__name__}.loss", next(model.parameters(), None)
    for name, ids in batch._asdict().items():
        if ids is None and name == "negatives":
            continue
        if not isinstance(ids, Tensor):
            raise TypeError(f"{place}: {name} must be a torch.Tensor of ids, got {type(ids).__name__}")
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"{place}: {name} must be int64 or int32, got {ids.dtype}")
        if ids.ndim != 1 and not (name == "negatives" and ids.ndim == 2):
            wanted = "[B] or [B, n]" if name == "negatives" else "[B]"
            raise ValueError(f"{place}: {name} must have shape {wanted}, got {tuple(ids.shape)}")
        if ids.shape[0] != batch.users.shape[0]:
            raise ValueError(f"{place}: {name} must be as many as users, {batch.users.shape[0]}, got {ids.shape[0]}")
        if one is not None and ids.device.type != one.device.type:
            raise ValueError(f"{place}: {name} must be on the model's device, {one.device}, got {ids.device}")


def _checks_batch(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A model's `loss` that looks at its batch first."""

    @wraps(loss)
    def call(self: Recommender, *parts: Any, **named: Any) -> Tensor:
        batch = parts[0] if parts and isinstance(parts[0], Batch) else named.get("batch")
        if batch is None and len(parts) + len(named) == len(Batch._fields):
            batch = Batch(*parts, **named)
        if batch is not None:
            self.check_batch(batch)
        return loss(self, *parts, **named)

    return call


class Recommender(nn.Module):
    """Base of the models. A model has `embeddings` or `scores`, and `loss` or `fit` (or neither: nothing to train).

    A class is made with (dataset, config); it keeps the config and sets up everything else itself. Graphs that are
    attributes, or in lists, tuples and dicts, follow the parameters to another device. Everything that evaluation
    reads is in the state dict, or follows from the data set and the configuration alone: a run is evaluated, and
    resumed, with what its checkpoint holds. A buffer that is empty (`torch.empty(0)`) when the model is made takes
    the shape of what a checkpoint holds.

    Every model's `loss` refuses an empty batch, and ids that its `n_users` and `n_items` do not have (`check_ids`): the
    base class sees to it.

    Attributes:
        config_class: dataclass with every setting, its default and its check; `setting` marks fields. Its docstring
            holds `name: help.` of each.
        sampler: name of what draws negatives (`smore_ext.training.samplers`): "uniform", "popularity", "none", or one
            that a package brings.
        n_negatives: negatives a positive.
        reads_no_features: True where the class uses interactions alone; not inherited, as a derived class may use more.
        config: the instance in use.
        n_users, n_items: numbers of users and items, those of the data set.
        loss_parts: detached scalars of the last loss, for the log; "bpr" is an unweighted BPR term, which is watched.
    """

    config_class: ClassVar[type]
    sampler: str = "uniform"
    n_negatives: int = 1
    reads_no_features: ClassVar[bool] = False
    config: Any
    n_users: int
    n_items: int
    loss_parts: dict[str, Tensor]

    def __new__(cls, dataset: Dataset | None = None, config: Any = None, *_: Any, **__: Any) -> Self:
        model = super().__new__(cls)
        if dataset is None:  # a copy is made
            return model
        if not isinstance(dataset, Dataset):
            raise TypeError(f"{cls.__name__}: dataset must be a Dataset, got {type(dataset).__name__}")
        wanted = getattr(cls, "config_class", None)
        if config is not None and wanted is not None and not isinstance(config, wanted):
            hint = f": {wanted.__name__}(**settings) makes one of a dict" if isinstance(config, dict) else ""
            raise TypeError(
                f"{cls.__name__}: config must be a {wanted.__name__} or None, got {type(config).__name__}{hint}"
            )
        vars(model).update(n_users=dataset.n_users, n_items=dataset.n_items)
        return model

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "loss" in vars(cls):
            cls.loss = _checks_batch(cls.loss)  # type: ignore[method-assign]

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.loss_parts = {}
        self.register_load_state_dict_post_hook(_after_load)

    @classmethod
    def on_device(cls, dataset: Dataset, config: Any, device: torch.device) -> Self:
        """The model on `device`; what is computed once on the way may be computed there."""
        return cls(dataset, config).to(device)

    @classmethod
    def features_read(cls, config: Any) -> tuple[str, ...] | None:
        """Names of the modalities whose features or graphs a model of `config` reads, None for all that there are.

        Others are not read from the disk.
        """
        return () if vars(cls).get("reads_no_features") else None

    # What every model has.

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Final embeddings (users [U, d], items [I, d]); a score is a dot product. Called without gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no embeddings()")

    def item_parts(self) -> dict[str, Tensor]:
        """What the items' final embeddings are the sum of, by name, [I, d] each: a score is the sum of the user's dot
        products with them, which says where it comes from. Called without gradients, in evaluation mode."""
        return {"embedding": self.embeddings()[1]}

    def scores(self, users: Tensor) -> Tensor:
        """Scores [B, I] of all items for `users` [B] int64, finite. Called without gradients.

        For models whose score is no dot product. A model that defines this is ranked by it, for some users at a time.
        """
        user_rows, items = self.embeddings()
        return user_rows[users] @ items.T

    def history_scores(self, had: Graph) -> Tensor:
        """Scores [B, I] of somebody who has had the items in each row of `had` [B, I], whose weights are 1.

        For models that score users by nothing but their train interactions, and linearly: scores of a history are the
        sum of those of its items. `scores` then asks it for the users' rows, and the model can be served: weights
        between items say all of it. Called without gradients, in evaluation mode.
        """
        raise NotImplementedError(f"{type(self).__name__} has no history_scores(had)")

    def loss(self, batch: Batch) -> Tensor:
        """Scalar loss of a batch, which is minimised; on the way it fills `loss_parts`."""
        raise NotImplementedError(f"{type(self).__name__} has trainable parameters but no loss(batch)")

    def fit(self, dataset: Dataset) -> None:
        """Computes the model in closed form, once, in place of epochs; called without gradients.

        What it computes goes into buffers, so that a checkpoint holds it; `after_load` makes a graph of them again.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fit(dataset)")

    # What a model may have: each does nothing unless it is defined.

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool | None:
        """Redraws or relearns what the epoch's `loss` uses. Called before each epoch's first step, without gradients.

        It must be a function of the weights, the epoch and `generator` (on the CPU, seeded by the run's seed and the
        epoch): a run that is resumed calls it again. Evaluation does not: what it reads is in buffers.

        Returns:
            Whether a tensor that `loss` reads has moved or changed its shape, as a new Graph has: a captured step is
            then captured again. What is written in place (`copy_`) needs no answer. The loop checks it.
        """
        return False

    def after_step(self) -> None:
        """Called after each step of the optimizer, without gradients; for target copies. It writes in place."""

    def after_load(self) -> None:
        """Called after a state dict was loaded; remakes what follows from buffers, as a Graph of stored neighbours."""

    def feature_tables(self) -> list[tuple[nn.Parameter, TableLinear]]:
        """Trained feature tables, each with the one layer that reads it: their gradients need not be formed."""
        return []

    def one_forward(self) -> AbstractContextManager[None]:
        """Within it weights and mode do not change, so `embeddings` and `statistics` may share what they compute."""
        return nullcontext()

    def of_data(self) -> frozenset[str]:
        """Names in the state dict of what is a copy of the data set's and never changes: checkpoints lack it."""
        return frozenset()

    def statistics(self) -> dict[str, float]:
        """Figures worth logging once an epoch."""
        return {}

    def notices(self, occasion: Occasion) -> list[str]:
        """What the reader of the results should know, said once a run; see `smore_ext.models.notices`."""
        return ranking_notices(occasion)

    @property
    def backend(self) -> str | None:
        """Which implementation of the ops computes it, for results; None where there is no choice."""
        return getattr(self.config, "backend", None)

    @property
    def capturable(self) -> bool:
        """Whether `loss` makes the host wait for nothing and has shapes that depend on the batch's size alone."""
        return self.backend == "native"

    def check_batch(self, batch: Batch) -> None:
        """Every `loss` begins with it: an empty batch is a ValueError, an id that nobody has an IndexError; ids are
        whole numbers on the model's device, users and positives [B], negatives [B] or [B, n]."""
        model = type(self).__name__
        _check_form(self, batch)
        if batch.users.numel() == 0:
            raise ValueError(f"{model}.loss: expected at least one interaction, got an empty batch")
        limits = {"users": self.n_users, "positives": self.n_items, "negatives": self.n_items}
        for name, ids in batch._asdict().items():
            if ids is not None:
                check_ids(model, name, ids, limits[name])

    # What the loop asks.

    @property
    def factored(self) -> bool:
        """Whether a score is a dot product of `embeddings()`, which are then computed once for all users."""
        return type(self).scores is Recommender.scores

    @property
    def scores_histories(self) -> bool:
        """Whether `scores` are those of `history_scores`; not where a derived class has `scores` of its own alone."""
        by_history, by_user = (_definer(type(self), name) for name in ("history_scores", "scores"))
        return by_history is not Recommender and by_user is not Recommender and issubclass(by_history, by_user)

    @property
    def closed_form(self) -> bool:
        """Whether `fit` takes the place of epochs."""
        return type(self).fit is not Recommender.fit

    def addresses(self) -> dict[str, tuple[int, torch.Size]]:
        """Where each tensor lies that a step may read, and its shape, by name: parameters, buffers, graphs' parts."""
        return {
            name: (tensor.data_ptr(), tensor.shape)
            for name, tensor in self._tensors()
            if tensor.layout == torch.strided
        }

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from chain(self.named_parameters(), self.named_buffers())
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if name not in ("loss_parts", "_parameters", "_buffers", "_modules"):
                    yield from _tensors_of(f"{prefix}.{name}" if prefix else name, value)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        _take_stored_shapes(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Graphs follow the parameters to another device. They are no buffers: a state dict does not hold them.
        super()._apply(fn, recurse)
        own = next(chain(self.parameters(), self.buffers()), None)
        device = (fn(torch.empty(0)) if own is None else own).device
        for module in self.modules():
            for name, value in vars(module).items():
                if _holds_graph(value):
                    setattr(module, name, _graphs_on(value, device))
        return self


def _definer(cls: type, name: str) -> type:
    """The class that `cls` has a method from."""
    return next(base for base in cls.__mro__ if name in vars(base))


def _take_stored_shapes(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> None:
    """Empty buffers take the shapes of what is loaded into them."""
    for name, buffer in model.named_buffers():
        stored = state_dict.get(prefix + name)
        if not buffer.numel() and stored is not None:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, buffer.new_empty(stored.shape))


def _after_load(model: nn.Module, _: object) -> None:
    cast(Recommender, model).after_load()


def _holds_graph(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, Graph) or (isinstance(value, list | tuple) and any(map(_holds_graph, value)))


def _graphs_on(value: Any, device: torch.device) -> Any:
    if isinstance(value, Graph):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _graphs_on(entry, device) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        moved = [_graphs_on(entry, device) for entry in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    return value


def _tensors_of(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Graph):
        # The weights that it holds: those of a transpose may be gathered anew at each use.
        parts = {"rowptr": value.rowptr, "col": value.col, "weight": value._weight, "scale": value.scale}
        yield from ((f"{name}.{part}", tensor) for part, tensor in parts.items() if tensor is not None)
    elif isinstance(value, dict | list | tuple):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors_of(f"{name}[{key}]", entry)
