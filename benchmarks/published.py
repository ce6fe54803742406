"""The structure of the published code around a step: its loop, validation, and what it does before the first step.

Written from the description in docs/spec.md, not copied. Where the published code is slower in a way that is beside
the point (its checks, its logging), the quicker way is taken: these peers flatter it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from torch import Tensor

from benchmarks.peers import published_knn_graph, python_sampler, seen_sets
from smore_ext import SMORE, Dataset, SMOREConfig
from smore_ext.training.optimizers import adam

KS = (5, 10, 20, 50)
EVAL_BATCH = 4096


class PublishedEpoch:
    """An epoch: a Python sampler, COO products, default Adam, a loss read each step, and a validation that runs the
    whole forward pass for every batch of users and ranks a dense score matrix."""

    def __init__(self, data: Dataset, config: SMOREConfig) -> None:
        self.data, self.batch_size = data, config.batch_size
        torch.manual_seed(0)
        self.model = SMORE(data, replace(config, backend="reference"))
        self.optimizer = adam(self.model, 1e-3, fused=False)
        self.seen = seen_sets(data.seen)
        self.candidates = data.candidates.tolist()
        self.relevant = pd.Series(data.valid.items.numpy()).groupby(data.valid.users.numpy()).apply(list)
        self.batches = []
        for users in torch.tensor(self.relevant.index.to_numpy()).split(EVAL_BATCH):
            masked = data.seen.rows(users)
            self.batches.append((users, masked.row.long(), masked.col.long()))

    def __call__(self) -> dict[str, float]:
        self.train()
        return self.validate()

    def train(self) -> float:
        self.model.train()
        order = torch.randperm(len(self.data.train.users))
        total = 0.0
        for rows in order.split(self.batch_size):
            users = self.data.train.users[rows]
            negatives = torch.tensor(python_sampler(users.tolist(), self.seen, self.candidates))
            self.optimizer.zero_grad()
            loss = self.model.loss(users, self.data.train.items[rows], negatives)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        ranked = []
        for users, row, col in self.batches:
            user_rows, item_rows = self.model.embeddings()
            scores = user_rows[users] @ item_rows.T
            scores[row, col] = -1e10
            ranked.append(scores.topk(max(KS), dim=1).indices)
        return python_metrics(torch.cat(ranked), self.relevant.tolist())


def python_metrics(ranked: Tensor, relevant: list[list[int]]) -> dict[str, float]:
    """Hits found user by user in Python, then Recall, Precision, NDCG and MAP in numpy."""
    rows = [[item in wanted for item in line] for line, wanted in zip(ranked.tolist(), relevant, strict=True)]
    hits = np.array(rows, dtype=float)  # [U, K]
    n_relevant = np.array([len(wanted) for wanted in relevant])
    ranks = np.arange(1, hits.shape[1] + 1)
    n_hits, gain = hits.cumsum(axis=1), (hits / np.log2(ranks + 1)).cumsum(axis=1)
    precision = (hits * n_hits / ranks).cumsum(axis=1)
    ideal = (1 / np.log2(ranks + 1)).cumsum()
    metrics = {}
    for k in KS:
        best = np.minimum(n_relevant, k)
        metrics[f"recall@{k}"] = (n_hits[:, k - 1] / n_relevant).mean()
        metrics[f"precision@{k}"] = (n_hits[:, k - 1] / k).mean()
        metrics[f"ndcg@{k}"] = (gain[:, k - 1] / ideal[best - 1]).mean()
        metrics[f"map@{k}"] = (precision[:, k - 1] / best).mean()
    return metrics


def before_the_first_step(folder: Path, config: SMOREConfig) -> list[object]:
    """Table, features, each user's items, what validation needs, the user-item adjacency and the item graphs."""
    table = pd.read_csv(folder / f"{folder.name}.inter", sep="\t")
    n_users, n_items = int(table["userID"].max()) + 1, int(table["itemID"].max()) + 1
    train = table[table["x_label"] == 0]
    later = [table[(table["x_label"] == label) & table["userID"].isin(train["userID"])] for label in (1, 2)]
    history = {user: set(items) for user, items in train.groupby("userID")["itemID"]}
    features = {m: torch.from_numpy(np.load(folder / f"{m}_feat.npy")) for m in config.knn_k}
    item_graphs = {m: published_knn_graph(table, config.knn_k[m]) for m, table in features.items()}
    embeddings = [torch.nn.init.xavier_uniform_(torch.empty(n, config.embedding_dim)) for n in (n_users, n_items)]
    adjacency = published_adjacency(train["userID"].to_numpy(), train["itemID"].to_numpy(), n_users, n_items)
    evaluation = [published_evaluation(table, history) for table in later]
    return [evaluation, features, embeddings, item_graphs, adjacency, published_fusion(*item_graphs.values())]


def published_adjacency(users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> tuple[Tensor, Tensor]:
    """D^-1/2 A D^-1/2 and its user rows, by way of scipy's dictionary-of-keys and list-of-lists matrices."""
    n = n_users + n_items
    interactions = scipy.sparse.coo_matrix((np.ones(len(users), np.float32), (users, items)), shape=(n_users, n_items))
    blocks = scipy.sparse.dok_matrix((n, n), dtype=np.float32).tolil()
    rows = interactions.tolil()
    blocks[:n_users, n_users:] = rows
    blocks[n_users:, :n_users] = rows.T
    matrix = blocks.todok()
    degree = np.asarray(matrix.sum(axis=1)).ravel()
    scale = scipy.sparse.diags(np.divide(1, np.sqrt(degree), out=np.zeros(n), where=degree > 0))
    normalised = scale.dot(matrix).dot(scale).tocoo().tolil()
    user_rows = normalised[:n_users, n_users:]
    return to_torch(user_rows.tocoo()), to_torch(normalised.tocsr().tocoo())


def to_torch(matrix: scipy.sparse.coo_matrix) -> Tensor:
    index = torch.from_numpy(np.vstack((matrix.row, matrix.col)).astype(np.int64))
    return torch.sparse_coo_tensor(index, torch.from_numpy(matrix.data.astype(np.float32)), matrix.shape)


def published_evaluation(table: pd.DataFrame, history: dict[int, set[int]]) -> list[object]:
    """What a validation needs, gathered user by user: the items to find and the positions to mask."""
    groups = table.groupby("userID")["itemID"]
    users = table["userID"].unique()
    wanted = [groups.get_group(user).to_numpy() for user in users]
    masked_users = [place for place, user in enumerate(users) for _ in history[user]]
    masked_items = [item for user in users for item in history[user]]
    return [users, wanted, torch.tensor([masked_users, masked_items])]


def published_fusion(first: Tensor, second: Tensor) -> Tensor:
    """Union of the edges, the larger weight on each."""
    index = torch.cat([first.indices(), second.indices()], dim=1)
    edges, place = torch.unique(index, dim=1, return_inverse=True)
    weight = torch.full((2, edges.shape[1]), -torch.inf)
    split = first.indices().shape[1]
    weight[0, place[:split]] = first.values()
    weight[1, place[split:]] = second.values()
    return torch.sparse_coo_tensor(edges, weight.amax(dim=0), first.shape).coalesce()
