"""The ops in a training loop of your own: LightGCN (arXiv 2002.02126), written with torch and five ops.

python examples/lightgcn_loop.py     seconds on one CPU core; prints Recall@20 on validation after each epoch
"""

import torch
from torch import nn

from smore_ext import Graph, builtin_dataset, ops

EPOCHS, BATCH, LAYERS, WIDTH, L2, SEED = 6, 512, 2, 64, 1e-4, 1


def recall_at_20(users: torch.Tensor, items: torch.Tensor, seen: Graph, held_out: Graph) -> float:
    """Mean share of a user's held-out items among the 20 best unseen ones; no score matrix is formed."""
    _, best = ops.masked_topk(users, items, 20, seen)  # [U, 20]
    relevant = torch.zeros(held_out.shape, dtype=torch.bool)
    relevant[held_out.row.long(), held_out.col.long()] = True
    hits = relevant.gather(1, best).sum(1)
    counts = held_out.rowptr.diff()
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def main() -> None:
    torch.manual_seed(SEED)
    data = builtin_dataset()
    users, items = data.train  # [E] int64 each
    graph = Graph.bipartite(users, items, data.n_users, data.n_items)  # D^-1/2 [[0, R], [R^T, 0]] D^-1/2
    held_out = Graph.from_edges(*data.valid, None, (data.n_users, data.n_items))

    ids = nn.Parameter(torch.empty(data.n_users + data.n_items, WIDTH))
    nn.init.xavier_uniform_(ids)
    optimizer = torch.optim.Adam([ids], lr=5e-3, fused=True)
    for epoch in range(EPOCHS):
        # The same negatives for the same (seed, epoch), whatever the number of threads.
        negatives = ops.sample_negatives(users, data.seen, data.candidates, seed=SEED, offset=epoch)
        for batch in torch.randperm(len(users)).split(BATCH):
            final = ops.propagate(graph, ids, LAYERS)  # mean over A^0 .. A^L
            user_rows, item_rows = final.split([data.n_users, data.n_items])
            bpr, l2 = ops.bpr_loss(user_rows, item_rows, users[batch], items[batch], negatives[batch])
            optimizer.zero_grad()
            (bpr + L2 * l2 / BATCH).backward()
            optimizer.step()
        with torch.no_grad():
            final_users, final_items = ops.propagate(graph, ids, LAYERS).split([data.n_users, data.n_items])
        recall = recall_at_20(final_users, final_items, data.seen, held_out)
        print(f"epoch {epoch}: BPR {bpr.item():.4f}, validation Recall@20 {recall:.4f}")


if __name__ == "__main__":
    main()
