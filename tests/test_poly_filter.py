"""poly_filter beyond the op table: what it is equal to, and what it keeps."""

from __future__ import annotations

import pytest
import torch

from smore_ext import Graph, ops, reference
from smore_ext.testing import random_graph


def graph_and_rows(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Graph, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    graph = random_graph(generator, 90, 90, 700).to(device)
    return graph, torch.randn(90, 24, generator=generator).to(device, dtype)


def test_equal_coefficients_are_the_mean_over_layers(device: torch.device) -> None:
    graph, x = graph_and_rows(device)
    for layers in (0, 1, 3):
        mean = ops.propagate(graph, x, layers)
        torch.testing.assert_close(ops.poly_filter(graph, x, [1 / (layers + 1)] * (layers + 1)), mean)


def test_the_last_coefficient_alone_is_a_power(device: torch.device) -> None:
    graph, x = graph_and_rows(device)
    assert torch.equal(ops.poly_filter(graph, x, [0.0, 0.0, 1.0]), ops.propagate(graph, x, 2, "last"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_coefficients_may_be_numbers(device: torch.device, dtype: torch.dtype) -> None:
    graph, x = graph_and_rows(device, dtype)
    numbers = (0.5, -2.0, 0.25)
    tensor = torch.tensor(numbers, dtype=torch.float32 if dtype == torch.bfloat16 else dtype, device=device)
    assert torch.equal(ops.poly_filter(graph, x, numbers), ops.poly_filter(graph, x, tensor))


def test_either_gradient_may_be_wanted_alone(device: torch.device) -> None:
    graph, x = graph_and_rows(device, torch.float64)
    coefficients = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64, device=device)
    both = [t.clone().requires_grad_() for t in (x, coefficients)]
    wanted = torch.autograd.grad(ops.poly_filter(graph, *both).square().sum(), both)
    alone = [
        torch.autograd.grad(ops.poly_filter(graph, both[0], coefficients).square().sum(), both[0])[0],
        torch.autograd.grad(ops.poly_filter(graph, x, both[1]).square().sum(), both[1])[0],
    ]
    for one, other in zip(alone, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("terms", [2, 9])
def test_nothing_is_kept_per_layer(device: torch.device, terms: int) -> None:
    graph, x = graph_and_rows(device)
    kept: list[torch.Tensor] = []
    x, coefficients = x.requires_grad_(), torch.randn(terms, device=device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ops.poly_filter(graph, x, coefficients)
    rows = {t.data_ptr() for t in kept if t.ndim == 2}
    assert rows == {x.data_ptr()}


def test_weights_of_a_graph_that_require_grad_get_one(device: torch.device) -> None:
    graph, x = graph_and_rows(device, torch.float64)
    weight = torch.rand(graph.n_edges, dtype=torch.float64, device=device, requires_grad=True)
    coefficients = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64, device=device)
    ours = ops.poly_filter(graph.with_weight(weight), x, coefficients)
    exact = reference.poly_filter(graph, x, coefficients, weight)
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(y.square().sum(), weight)[0] for y in (ours, exact)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_dot_products_of_many_rows_are_near_exact(device: torch.device) -> None:
    """A plain sum in float32 of so many equal terms would lose four digits."""
    n = 60_000
    graph = Graph.from_edges(torch.arange(n), torch.arange(n), None, (n, n)).to(device)
    x = torch.full((n, 8), 0.1, device=device)
    coefficients = torch.tensor([1.0, 1.0], device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.poly_filter(graph, x, coefficients).sum(), coefficients)
    exact = 8 * n * float(torch.tensor(0.1))
    assert (grad.double().cpu() - exact).abs().max() <= 1e-6 * exact
