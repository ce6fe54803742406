"""Floors of the cases: bytes, gathered bytes and flops that no implementation can avoid. float32 unless said otherwise.

Spectral ops and Adam are stated as passes over arrays; sparse products as reads of the rows that edges name (the index
of an edge costs 4 bytes, and 4 more for its weight); products of dense matrices as flops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.ceilings import Floor
from smore_ext import Graph

FLOAT = 4
ADAM_BYTES = 28  # a parameter: read for the forward pass; parameter and two moments read and written by Adam


def fft_flops(width: int) -> float:
    """A real transform of one row."""
    return 2.5 * width * math.log2(max(width, 2))


def fusion(rows: int, width: int, modalities: int, backward: bool, filtered: bool = True) -> Floor:
    """Forward reads M arrays and writes M + 1, or one if they are not filtered. Backward reads M inputs and as many
    gradients as were written and writes M."""
    outputs = modalities * filtered + 1
    arrays = transforms = modalities + outputs
    products = 12 * outputs * (width // 2 + 1) * (2 if backward else 1)
    if backward:
        arrays, transforms = arrays + 2 * modalities + outputs, transforms + 2 * modalities + outputs
    row_flops = transforms * fft_flops(width) + products
    return Floor(FLOAT * arrays * rows * width, row_flops * rows)


def spectral_filter(rows: int, width: int, backward: bool) -> Floor:
    """Forward reads one array and writes one; backward reads the input and the gradient and writes one."""
    arrays, transforms = (5, 5) if backward else (2, 2)
    return Floor(FLOAT * arrays * rows * width, transforms * fft_flops(width) * rows)


def kept_frequencies(rows: int, width: int, keep: int) -> Floor:
    """Forward and backward of a filter of the lowest frequencies: bytes of any filter; bins by definition, folded."""
    by_definition = 2.0 * width * keep / 2
    return Floor(FLOAT * 5 * rows * width, 5 * min(by_definition, fft_flops(width)) * rows)


def spmm(graph: Graph, width: int, element: int = FLOAT, weighted: bool = True) -> Floor:
    """Edges and weights once, each named row and each result once from memory; one row an edge from cache.

    element: bytes of a number in rows of x and of the result. weighted: false for a product that reads no weights.
    """
    touched = int((graph.t.rowptr.diff() > 0).sum())
    rows = element * width * (touched + graph.n_rows)
    from_memory = (1 + weighted) * FLOAT * graph.n_edges + FLOAT * (graph.n_rows + 1) + rows
    return Floor(from_memory, 2.0 * graph.n_edges * width, element * width * graph.n_edges)


def spmm_step(graph: Graph, width: int) -> Floor:
    """Forward, and backward with the transpose."""
    return spmm(graph, width) + spmm(graph.t, width)


def propagate_step(graph: Graph, width: int, layers: int, element: int = FLOAT) -> Floor:
    """Forward and backward of some layers; separable weights are needed in the first layer only."""
    total = Floor()
    for matrix in (graph, graph.t):
        for layer in range(layers):
            total += spmm(matrix, width, element, weighted=layer == 0 or matrix.scale is None)
    return total


def poly_step(graph: Graph, width: int, layers: int) -> Floor:
    """As propagate_step; besides, backward reads x and adds to the gradient of x for each coefficient."""
    return propagate_step(graph, width, layers) + Floor(FLOAT * width * 3 * graph.n_rows * (layers + 1))


def gated_step(graph: Graph, width: int) -> Floor:
    """Both products; besides, x and gate are read in both directions, and one array of gradients more is written."""
    return spmm_step(graph, width) + Floor(FLOAT * width * 5 * graph.n_cols)


def weighted_step(graph: Graph, width: int) -> Floor:
    """Both products, the dot products of edges (as many bytes as a product), and weights in the transpose's order."""
    return spmm_step(graph, width) + spmm(graph, width) + Floor(3 * FLOAT * graph.n_edges)


def edge_dot_step(graph: Graph, width: int) -> Floor:
    """Two rows an edge; then for each of them the product with weights, by the graph or its transpose."""
    return spmm(graph, width) + spmm(graph.t, width) + spmm_step(graph, width)


def edge_softmax_step(graph: Graph) -> Floor:
    """Forward reads logits and writes weights; backward reads these and their gradient, and writes another."""
    return Floor(5 * FLOAT * graph.n_edges + 2 * FLOAT * (graph.n_rows + 1))


def knn(rows: int, width: int) -> Floor:
    """All pairs once: similarity is symmetric."""
    return Floor(FLOAT * rows * width, 1.0 * rows * rows * width)


def knn_in_base(queries: int, rows: int, width: int) -> Floor:
    return Floor(FLOAT * (queries + rows) * width, 2.0 * queries * rows * width)


def cosine_step(rows: int, k: int, width: int) -> Floor:
    """Forward reads the row of each pair, backward that of each pair in both directions; indices are 8 bytes."""
    pairs = rows * k
    arrays = FLOAT * 3 * rows * width  # the table twice, its gradient
    return Floor(arrays + (8 + 8) * pairs + FLOAT * 3 * pairs, 6.0 * pairs * width, FLOAT * 3 * pairs * width)


def masked_topk(users: int, items: int, width: int, k: int) -> Floor:
    return Floor(FLOAT * width * (users + items) + 12 * users * k, 2.0 * users * items * width)


def sample_negatives(draws: int, seen_edges: int) -> Floor:
    """User, candidate and result (8 bytes each) a draw, and the lists of seen items once."""
    return Floor(24 * draws + 4 * seen_edges)


def info_nce(batch: int, width: int) -> Floor:
    """Forward and backward: one product for the scores, two for the gradients. The exponentials come on top."""
    return Floor(FLOAT * 4 * batch * width, 3 * 2.0 * batch * batch * width)


def score_sums(rows: int, keys: int, width: int) -> Floor:
    """As info_nce, of rows against other keys."""
    return Floor(FLOAT * 2 * (rows + keys) * width, 3 * 2.0 * rows * keys * width)


def gather_rows(rows: int, size: int, width: int) -> Floor:
    """Forward reads and writes the rows that are named; backward reads their gradients and writes all rows."""
    return Floor(FLOAT * width * (3 * size + rows))


def modality_preference(rows: int, modalities: int, width: int) -> Floor:
    """Forward reads gates, attention and views and writes a row; backward reads all of these and writes as many."""
    arguments = 3 * modalities + 2
    return Floor(FLOAT * width * rows * (3 * arguments + 2))


def dropout(elements: int) -> Floor:
    """Forward and backward: read and written once each."""
    return Floor(FLOAT * 4 * elements)


def bpr_loss(nodes: int, batch: int, width: int) -> Floor:
    """Forward and backward: three rows a triple read, all rows of the dense gradients written."""
    return Floor(FLOAT * width * (3 * batch + nodes), 12.0 * batch * width)


def table_step(rows: int, table_width: int, width: int) -> Floor:
    """Projection, its two gradients (the table's one is of rank `width`) and Adam."""
    cells = rows * table_width
    return Floor(ADAM_BYTES * cells, 3 * 2.0 * cells * width)


def training_step(
    nodes: int,
    items: int,
    table_widths: Sequence[int],
    bipartite: Graph,
    item_graphs: Sequence[Graph],
    layers: int,
    batch: int,
    width: int,
) -> Floor:
    """Feature tables, embeddings' Adam, graph products, spectral fusion, the items' gates and InfoNCE.

    What works on the nodes of the batch only (users' views, preference) is small and left out.
    """
    total = Floor(ADAM_BYTES * nodes * width)
    for table_width in table_widths:
        total += table_step(items, table_width, width)
    total += propagate_step(bipartite, width, layers)
    for graph in item_graphs:
        total += spmm_step(graph, width)
    total += fusion(items, width, len(table_widths), True)
    total += Floor(flops=3 * 2.0 * items * width * width * (len(table_widths) + 1))  # gates
    return total + info_nce(batch, width) * 2
