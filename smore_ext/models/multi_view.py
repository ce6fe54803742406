"""The frame that MGCN brought and SMORE keeps: a behaviour view, item views over frozen graphs, and side information.

A node's behaviour view is LightGCN's. Its other views are those of its modalities: of items, ids under gates of their
features, smoothed over item graphs; of users, sums over their items. A model says how views are made (`views`) and how
they become side information (`_side`), which works row by row. Loss: BPR and L2 on the batch's final embeddings, which
are the sum of both, and InfoNCE between side information and behaviour view.
Shapes: U users, I items, d = embedding_dim, D_m the raw width of modality m, W views side by side of width d each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from smore_ext.data import Dataset
from smore_ext.models.contract import (
    BACKENDS,
    Batch,
    check_at_least,
    check_backend,
    check_layers,
    distinct,
    setting,
    takes_parts,
)
from smore_ext.models.id_embeddings import IdEmbeddings
from smore_ext.models.modalities import (
    BuildsItemGraphs,
    checked_cache_dir,
    chosen_modalities,
    default_cache_dir,
    item_graph,
)
from smore_ext.models.notices import Occasion, RunBegins, ranking_notices

NODES = 32_768  # nodes whose side information is computed at once when all are asked for


@dataclass
class MultiViewConfig:
    """Settings of the frame.

    embedding_dim: width d of all embeddings.
    n_ui_layers: layers over the user-item graph.
    n_mm_layers: layers over the item graphs; 0 leaves the views unsmoothed.
    knn_k: neighbours in the item graphs, one number or one a modality (image=40,text=15).
    cl_weight: weight of the InfoNCE term; 0 leaves it out.
    cl_warmup: epochs over which that term grows from 0 to its weight; 0 for at once, as published.
    reg_weight: weight of the L2 term.
    temperature: of InfoNCE.
    freeze_features: keep the raw features as they are instead of training them.
    batch_size: interactions a step, by which the L2 term divides; in a run the loop's.
    modalities: names to use, none for all that the data set has.
    backend: native (this package's kernels) or reference (plain PyTorch).
    cache_dir: where item graphs are kept between runs, none for nowhere.
    """

    unread: ClassVar[tuple[str, ...]] = ("lambda_coeff",)  # stands in published files, and published code ignores it

    embedding_dim: int = setting(64, aliases=("embedding_size",))
    n_ui_layers: int = 4
    n_mm_layers: int = setting(1, aliases=("n_layers",))
    knn_k: int | dict[str, int] = setting(10, aliases=("image_knn_k", "text_knn_k"))
    cl_weight: float = setting(0.01, aliases=("cl_loss",))
    cl_warmup: int = 0
    reg_weight: float = setting(1e-4, aliases=("reg_loss",))
    temperature: float = 0.2
    freeze_features: bool = False
    batch_size: int = setting(2048, loop=True)
    modalities: tuple[str, ...] | None = None
    backend: str = "native"
    cache_dir: str | None = setting(None, changeable=True, run_default=default_cache_dir)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "batch_size"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("n_ui_layers", "n_mm_layers"):
            check_layers(name, getattr(self, name))
        for name in ("cl_weight", "cl_warmup", "reg_weight"):
            check_at_least(name, getattr(self, name), 0)
        for k in self.knn_k.values() if isinstance(self.knn_k, dict) else [self.knn_k]:
            check_at_least("knn_k", k, 1)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be greater than 0 and finite, got {self.temperature}")
        if self.modalities is not None:
            self.modalities = tuple(self.modalities)
            if not self.modalities or len(set(self.modalities)) < len(self.modalities):
                raise ValueError(
                    f"modalities must name at least one modality, each once, got {', '.join(self.modalities) or 'none'}"
                )
        check_backend(self.backend)
        self.cache_dir = checked_cache_dir(self.cache_dir)

    def knn_k_of(self, modalities: list[str], built: list[str]) -> dict[str, int]:
        """Neighbours in the graphs that are `built`, of all `modalities`."""
        if not isinstance(self.knn_k, dict):
            return dict.fromkeys(built, self.knn_k)
        if not set(built) <= set(self.knn_k) or not set(self.knn_k) <= set(modalities):
            raise ValueError(f"knn_k must name every modality ({', '.join(modalities)}), got {', '.join(self.knn_k)}")
        return {m: self.knn_k[m] for m in built}


def _full_precision(t: Tensor) -> Tensor:
    """float32 for the losses, where autocast left something narrower."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


def gate(width: int) -> nn.Sequential:
    """sigmoid(W x + b), elementwise factors in 0..1."""
    return nn.Sequential(nn.Linear(width, width), nn.Sigmoid())


class MultiView(BuildsItemGraphs, IdEmbeddings):
    """The frame on a dataset with at least one modality; a subclass adds parameters, `views` and `_side`."""

    config: MultiViewConfig
    cl_share: Tensor
    _shared: list[tuple[Tensor, Tensor]] | None = None  # blocks, while they are those of the weights

    @classmethod
    def features_read(cls, config: MultiViewConfig) -> tuple[str, ...] | None:
        return config.modalities

    def __init__(self, dataset: Dataset, config: MultiViewConfig, knn_device: torch.device | str = "cpu") -> None:
        """On the CPU. Item graphs are computed on `knn_device`: they are the same from anywhere."""
        super().__init__(dataset, config.embedding_dim)
        self.config = config
        self.modalities = chosen_modalities(type(self).__name__, dataset, config.modalities)
        knn_k = config.knn_k_of(self.modalities, [m for m in self.modalities if m not in dataset.graphs])
        self.user_item = self.bipartite.block(slice(dataset.n_users), slice(dataset.n_users, None))  # R [U, I]
        self.item_graphs = {
            m: item_graph(dataset, m, knn_k.get(m, 0), config.cache_dir, knn_device) for m in self.modalities
        }
        self.add_features(dataset, config.embedding_dim)
        self.register_buffer("cl_share", torch.ones(()), persistent=False)  # of cl_weight, in this epoch

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool:
        if self.config.cl_warmup:
            self.cl_share.fill_(min(1.0, epoch / self.config.cl_warmup))
        return False

    def views(self) -> tuple[Tensor, Tensor]:
        """Behaviour view C [U+I, d] of all nodes, and the other views [I, W d] of items."""
        raise NotImplementedError(f"{type(self).__name__} has no views()")

    def _side(self, behaviour: Tensor, views: Tensor) -> Tensor:
        """Side information [R, d] of nodes with these views [R, d] and [R, W d]; row by row."""
        raise NotImplementedError(f"{type(self).__name__} has no _side()")

    def behaviour(self) -> Tensor:
        """The behaviour view of all nodes, [U+I, d]."""
        nodes = torch.cat([self.user_embedding.weight, self.item_embedding.weight])  # [U+I, d]
        return BACKENDS[self.config.backend].propagate(self.bipartite, nodes, self.config.n_ui_layers)

    def _of_nodes(self, behaviour: Tensor, views: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Behaviour view [R, d] and other views [R, W d] of nodes `rows`, ascending, from those of all and of items."""
        f = BACKENDS[self.config.backend]
        # A GPU computes all users sooner than it tells the host which ones; a compiled graph cannot tell at all.
        if rows.is_cuda or torch.compiler.is_compiling():
            return f.gather_rows([behaviour, self._every(views)], rows, check=False)
        users = rows[rows < self.n_users]
        items = f.gather_rows(views, rows[users.shape[0] :] - self.n_users, check=False)
        return f.gather_rows(behaviour, rows, check=False), torch.cat(
            [f.spmm(self.user_item.rows(users), views), items]
        )

    def _every(self, views: Tensor) -> Tensor:
        """The views of all nodes [U+I, W d] from those of the items."""
        return torch.cat([BACKENDS[self.config.backend].spmm(self.user_item, views), views])

    def forward(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Behaviour view C and side information of the nodes `rows` (users first; None: all), both [R, d].

        Final embeddings are their sum. Users' views and side information work row by row, so a training step needs
        them for its batch only: `rows` ascends then.
        """
        behaviour, views = self.views()
        behaviour, views = (behaviour, self._every(views)) if rows is None else self._of_nodes(behaviour, views, rows)
        return behaviour, self._side(behaviour, views)

    @contextmanager
    def one_forward(self) -> Iterator[None]:
        self._shared = []
        try:
            yield
        finally:
            self._shared = None

    def _blocks(self) -> list[tuple[Tensor, Tensor]]:
        """Behaviour view and all other views of all nodes, a block at a time: side information needs much memory."""
        if self._shared:
            return self._shared
        blocks = self._new_blocks()
        if self._shared is not None:
            self._shared = blocks
        return blocks

    def _new_blocks(self) -> list[tuple[Tensor, Tensor]]:
        behaviour, views = self.views()
        users, items = behaviour.split([self.n_users, self.n_items])
        user_views = BACKENDS[self.config.backend].spmm(self.user_item, views)  # [U, W d]
        nodes, their_views = users.split(NODES) + items.split(NODES), user_views.split(NODES) + views.split(NODES)
        return list(zip(nodes, their_views, strict=True))  # a generator does not compile on torch 2.14

    def embeddings(self) -> tuple[Tensor, Tensor]:
        final = torch.cat([behaviour + self._side(behaviour, views) for behaviour, views in self._blocks()])
        return final.split([self.n_users, self.n_items])

    def item_parts(self) -> dict[str, Tensor]:
        """Behaviour view, and side information by its parts."""
        behaviour, views = self.views()
        items = behaviour[self.n_users :]
        blocks = zip(items.split(NODES), views.split(NODES), strict=True)
        parts = [self._side_parts(block, of_block) for block, of_block in blocks]
        return {"behaviour": items} | {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _side_parts(self, behaviour: Tensor, views: Tensor) -> dict[str, Tensor]:
        """What side information is the sum of, by name, [R, d] each."""
        return {"side": self._side(behaviour, views)}

    @takes_parts
    def loss(self, batch: Batch) -> Tensor:
        """BPR, L2 on the batch's final embeddings, and InfoNCE between side information and behaviour view."""
        users, positives, negatives = batch.triples()
        f, config = BACKENDS[self.config.backend], self.config
        nodes = torch.cat([users, positives + self.n_users, negatives + self.n_users])  # [3 B]
        if config.backend == "native":  # each node of the batch once: one dropout mask a step, as for all nodes
            rows, place = distinct(nodes)
        else:  # as published: side information of every node
            rows, place = None, nodes
        behaviour, side = (_full_precision(t) for t in self(rows))  # [R, d] both
        user, positive, negative = place.split(users.shape[0])  # places in rows, [B] each
        final = behaviour + side
        bpr, l2 = f.bpr_loss(final, final, user, positive, negative)
        reg = config.reg_weight * l2 / config.batch_size
        self.loss_parts = {"bpr": bpr.detach(), "reg": reg.detach()}
        if config.cl_weight == 0:
            return bpr + reg
        contrast = config.cl_weight * self._contrast(side, behaviour, user, positive)
        if config.cl_warmup:
            contrast = contrast * self.cl_share
        self.loss_parts["cl"] = contrast.detach()
        return bpr + reg + contrast

    def _contrast(self, side: Tensor, behaviour: Tensor, user: Tensor, positive: Tensor) -> Tensor:
        """InfoNCE between side information and behaviour view [R, d], of users and of positives, rows [B] of these."""
        f, t = BACKENDS[self.config.backend], self.config.temperature
        rows = [user, positive]
        counts: list[Tensor | None] = [None, None]
        # A batch of Baby's names 1,461 items as positives, 2,048 times; a GPU would have to tell the host how many.
        if self.config.backend == "native" and side.is_cpu and not torch.compiler.is_compiling():
            often = [torch.bincount(named, minlength=side.shape[0]) for named in rows]
            rows = [of_part.nonzero().squeeze(1) for of_part in often]
            counts = [of_part[named] for of_part, named in zip(often, rows, strict=True)]
        sizes = [len(named) for named in rows]
        views = (view.split(sizes) for view in f.gather_rows([side, behaviour], torch.cat(rows), check=False))
        of_users, of_positives = (f.info_nce(x, y, t, counts=c) for x, y, c in zip(*views, counts, strict=True))
        return of_users + of_positives

    def notices(self, occasion: Occasion) -> list[str]:
        if isinstance(occasion, RunBegins):
            return _unused_knn_k(self.config, self.modalities, occasion.dataset)
        return ranking_notices(occasion, *pinned_cause(self.config.cl_weight))


def pinned_cause(cl_weight: float) -> list[str]:
    """Why the BPR term may stay that of random scores; nothing where InfoNCE is left out."""
    if not cl_weight:
        return []
    return [
        f"the likely cause is cl_weight {cl_weight:g}, whose term outweighs the ranking loss at first; if validation "
        f"does not rise within some 20 epochs, try a smaller --cl-weight"
    ]


def _unused_knn_k(config: MultiViewConfig, modalities: list[str], dataset: Dataset) -> list[str]:
    """That a `knn_k` which somebody chose has no effect, as the data set brings the item graphs."""
    if config.knn_k == type(config).knn_k or not set(modalities) <= set(dataset.graphs):
        return []
    return [f"knn_k {config.knn_k} is not used: the data set brings the item graphs of {', '.join(modalities)}"]
