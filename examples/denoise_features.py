"""Filter features in the frequency domain, and see in their kNN graphs what that brings.

The built-in data set plants item tastes in low frequencies and noise in high ones, so the right answer is known: the
neighbours by taste. A hand-made filter keeps the low frequencies; a model learns its own.

python examples/denoise_features.py     seconds on one CPU core; prints shares of neighbours that are the true ones
"""

import torch

from smore_ext import Graph, ops
from smore_ext.data import SyntheticConfig, generate

K = 10


def shared(graph: Graph, truth: Graph) -> float:
    """Share of the true neighbours, the item itself aside, that are neighbours in `graph`."""
    n = truth.n_rows
    edges = [{r * n + c for r, c in zip(g.row.tolist(), g.col.tolist(), strict=True) if r != c} for g in (graph, truth)]
    return len(edges[0] & edges[1]) / len(edges[1])


def main() -> None:
    config = SyntheticConfig(noise=1.5)  # noise of 1.5 times the signal, root mean square, in each modality
    data, planted = generate(config)
    width, last = config.projected_dim, config.signal_bins[1]

    # The planted linear projections; a model has learned ones in their place.
    signals = [data.features[m] @ torch.from_numpy(planted.projections[m]).float() for m in data.features]
    keep = torch.zeros(width // 2 + 1, 2)  # a complex filter as its real view
    keep[: last + 1, 0] = 1.0  # real and 1 at the frequencies that are kept
    denoised, fused = ops.spectrum_fusion(signals, [keep] * len(signals), keep)  # M x [I, d], [I, d]

    truth = Graph.knn(torch.from_numpy(planted.item_tastes).float(), K)
    for name, before, after in zip(data.features, signals, denoised, strict=True):
        was, now = (shared(Graph.knn(rows, K), truth) for rows in (before, after))
        print(f"{name}: {was:.3f} of the true neighbours before the filter, {now:.3f} after it")
    print(f"fused, the product of both spectra: {shared(Graph.knn(fused, K), truth):.3f}")

    graph = Graph.knn(denoised[0], K)
    item = 0
    print(f"neighbours of item {item}: {graph.col[graph.rowptr[item] : graph.rowptr[item + 1]].tolist()}")
    smooth = ops.spmm(graph, denoised[0])  # each item's features as the weighted sum of its neighbours'
    print(f"smoothed features: {tuple(smooth.shape)}, {smooth.dtype}")


if __name__ == "__main__":
    main()
