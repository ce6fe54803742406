"""Lazy matrices are what torch would have made: by their shorter ways, and by every other."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from mmrec_tools import ROOT
from torch import Tensor
from torch.nn import functional as F

from smore_ext.compat import mmrec
from smore_ext.compat.mmrec.lazy_gram import LazyGram
from smore_ext.compat.mmrec.lazy_sparse import LazySparse
from smore_ext.compat.mmrec.matmul import NAMES
from smore_ext.compat.mmrec.report import Report

N, K = 30, 4


def rows(grad: bool = False) -> Tensor:
    x = F.normalize(torch.randn(N, 6, generator=torch.Generator().manual_seed(2)), dim=1)
    return x.requires_grad_(grad)


def gram(grad: bool = False) -> LazyGram:
    return LazyGram.of(rows(grad), Report())


def sparse(value: Tensor | None = None) -> LazySparse:
    generator = torch.Generator().manual_seed(3)
    index = torch.stack([torch.randperm(N, generator=generator)[:K] for _ in range(N)])
    own = torch.rand(N, K, generator=generator) + 0.1
    return LazySparse.from_neighbours(index, own if value is None else value, (N, N))


def test_topk_of_a_gram_matrix() -> None:
    value, index = torch.topk(gram(), K, dim=-1)
    expected = (rows() @ rows().T).topk(K, dim=-1)
    assert torch.equal(index, expected.indices)
    torch.testing.assert_close(value, expected.values)
    assert torch.equal(gram().topk(K).indices, index)


@pytest.mark.parametrize("unit", [True, False])
def test_topk_has_gradients(unit: bool) -> None:
    grads = []
    for lazy in (False, True):
        x = (rows() if unit else rows() * torch.linspace(0.5, 2, N)[:, None]).requires_grad_()
        value = (LazyGram.of(x, Report()) if lazy else x @ x.T).topk(K)[0]
        grads.append(torch.autograd.grad((value * torch.arange(N * K).view(N, K)).sum(), x)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-3)


USES: list[Any] = [
    lambda m, x: m + 1,
    lambda m, x: 1 - m,
    lambda m, x: m * m,
    lambda m, x: m / 2,
    lambda m, x: m[3:5, 2],
    lambda m, x: m.exp().sum(),
    lambda m, x: m.sum(-1),
    lambda m, x: m.sum(dim=0),
    lambda m, x: torch.sum(m, 1),
    lambda m, x: m.mean(),
    lambda m, x: m.t() @ x,
    lambda m, x: m.T,
    lambda m, x: torch.mm(m, x),
    lambda m, x: torch.matmul(m, x),
    lambda m, x: m @ x,
    lambda m, x: x.T @ m,
    lambda m, x: torch.cat([m, m]),
    lambda m, x: torch.softmax(m, dim=-1),
    lambda m, x: F.relu(m - 0.2),
    lambda m, x: m > 0.3,
    lambda m, x: m.topk(3, dim=0).values,
    lambda m, x: torch.topk(m, 3, dim=-1, largest=False).values,
    lambda m, x: m.to(torch.float64),
    lambda m, x: m.detach().numpy().sum(),
    lambda m, x: m.masked_fill(m < 0.5, 0.0),
    lambda m, x: m.clone().fill_diagonal_(0.0),
    lambda m, x: 0.3 * m + 0.7 * m.detach(),
    lambda m, x: torch.tensor(0.5) * m + m,
    lambda m, x: torch.where(m > 0, m, 0.0),
    lambda m, x: m.to_sparse().to_dense(),
    lambda m, x: torch.diagonal(m),
]


@pytest.mark.parametrize("make", [gram, sparse])
@pytest.mark.parametrize("use", range(len(USES)))
def test_any_use_is_as_of_the_dense_matrix(make: Any, use: int) -> None:
    x = torch.randn(N, 5, generator=torch.Generator().manual_seed(4))
    dense = make().dense().clone()
    got, expected = USES[use](make(), x), USES[use](dense, x)
    torch.testing.assert_close(torch.as_tensor(_plain(got)), torch.as_tensor(expected))


def _plain(value: Any) -> Any:
    return value.dense() if hasattr(value, "dense") else value


@pytest.mark.parametrize("make", [gram, sparse])
def test_it_answers_as_a_tensor(make: Any) -> None:
    lazy = make()
    assert isinstance(lazy, Tensor) and torch.is_tensor(lazy)
    assert lazy.shape == lazy.size() == (N, N) and lazy.size(0) == len(lazy) == N
    assert lazy.dim() == lazy.ndim == 2 and lazy.dtype == torch.float32 and lazy.device.type == "cpu"
    assert lazy.cpu() is lazy and lazy.float() is lazy and lazy._dense is None
    with pytest.raises(AttributeError):
        lazy.no_such_name  # noqa: B018


@pytest.mark.parametrize("make", [gram, sparse])
def test_what_is_saved_is_an_ordinary_tensor(make: Any) -> None:
    file = io.BytesIO()
    torch.save(make(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded) is Tensor
    torch.testing.assert_close(loaded, make().dense())


def test_writing_counts() -> None:
    for write in (lambda m: m.mul_(2), lambda m: m.__setitem__((0, 0), 9.0), lambda m: m.data.fill_(3.0)):
        matrix = sparse()
        dense = matrix.dense().clone()
        write(matrix)
        write(dense)
        x = torch.ones(N, 2)
        torch.testing.assert_close(torch.mm(matrix, x), torch.mm(dense, x))
        torch.testing.assert_close(_plain(matrix * 2), dense * 2)
    matrix = sparse()
    before = matrix * 1.0
    matrix += 1.0
    torch.testing.assert_close(_plain(matrix), before.dense() + 1.0)


def test_scatter_into_zeros_in_place() -> None:
    value, index = torch.topk(gram(), K, dim=-1)
    zeros = torch.zeros_like(gram())
    zeros.scatter_(-1, index, value)
    expected = torch.zeros(N, N).scatter_(-1, index, value)
    torch.testing.assert_close(_plain(zeros), expected)
    twice = torch.zeros_like(gram()).scatter_(-1, torch.zeros(N, 2, dtype=torch.int64), torch.ones(N, 2))
    torch.testing.assert_close(twice, torch.zeros(N, N).scatter_(-1, torch.zeros(N, 2, dtype=torch.int64), 1.0))


def test_gradients_of_edges_and_factors() -> None:
    x = torch.randn(N, 3, generator=torch.Generator().manual_seed(5))
    grads = []
    for lazy in (True, False):
        value = (torch.arange(N * K).view(N, K).float().sin() + 1.1).requires_grad_()
        mix, y = torch.tensor([0.3, 0.7], requires_grad=True), x.clone().requires_grad_()
        a, b = sparse(value), sparse()
        a, b = (a, b) if lazy else (a.dense(), b.dense())
        whole = mix[0] * a + mix[1] * b
        out = torch.mm(whole, y).sin().sum() + whole.sum(-1).cos().sum()
        grads.append(torch.autograd.grad(out, [value, mix, y]))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_gram_matrix_is_found_where_it_is_one() -> None:
    x, other = rows(), rows() * 2
    with mmrec.patch("knn"):
        for owner, name in NAMES:
            if owner is not torch.sparse and name != "spmm":
                assert type(getattr(owner, name)(x, x.T)) is LazyGram, name
        assert type(torch.mm(x, other.T)) is Tensor
        assert type(x.T @ x) is Tensor  # few rows
        assert type(torch.mm(x.double(), x.double().T)) is Tensor  # two tensors
        torch.testing.assert_close(_plain(torch.mm(x, x.T)), torch.einsum("nd,md->nm", x, x))
    assert type(torch.mm(x, x.T)) is Tensor


def test_rows_without_a_direction_are_left_to_torch() -> None:
    x = rows()
    x[3] = float("nan")
    matrix = LazyGram.of(x, Report())
    value = matrix.topk(K).values
    assert torch.equal(value.isnan(), (x @ x.T).topk(K).values.isnan()) and matrix._dense is not None


def test_a_cached_matrix_of_few_entries_is_read_as_edges(tmp_path: Path) -> None:
    """Where the tree's own code reads it; anybody else gets what is in the file."""
    n = 300
    matrix = torch.zeros(n, n).scatter_(1, torch.arange(n)[:, None] // 2 + torch.arange(3), 0.5)
    torch.save(matrix, tmp_path / "few.pt")
    torch.save(torch.ones(n, n), tmp_path / "many.pt")
    script = compile("import torch\nfew, many = (torch.load(path) for path in paths)", str(ROOT / "x.py"), "exec")
    names: dict[str, Any] = {"paths": [tmp_path / "few.pt", tmp_path / "many.pt"]}
    with mmrec.patch("knn", ROOT):
        exec(script, names)
        assert type(torch.load(tmp_path / "few.pt")) is Tensor
    assert type(names["few"]) is LazySparse and type(names["many"]) is Tensor
    x = torch.randn(n, 4)
    torch.testing.assert_close(torch.mm(names["few"], x), matrix @ x)
    assert torch.equal(names["few"] + 1, matrix + 1)


@pytest.mark.parametrize("parts", [2, 5])
def test_stacked_layers(parts: int) -> None:
    x = [torch.randn(7, 3, generator=torch.Generator().manual_seed(i)) for i in range(parts)]
    uses: list[Any] = [
        lambda s: s.mean(dim=1),
        lambda s: torch.mean(s, dim=1, keepdim=False),
        lambda s: torch.mean(s, 1),
        lambda s: s.sum(dim=-2),
        lambda s: s.mean(dim=1, keepdim=True),
        lambda s: s.mean(),
        lambda s: s[:, 1],
        lambda s: s * torch.ones(parts, 1),
        lambda s: s.view(7, -1),
        lambda s: torch.split(s, [3, 4])[1],
    ]
    for use in uses:
        outcomes = []
        for lazy in (False, True):
            leaves = [part.clone().requires_grad_() for part in x]
            with mmrec.patch("layers" if lazy else ()) as report:
                stack = torch.stack(leaves, dim=1)
                assert stack.shape == (7, parts, 3) and stack.requires_grad
                assert (type(stack) is not Tensor) == lazy == bool(report.replaced)
                out = use(stack)
            grads = torch.autograd.grad((out * out).sum(), leaves, allow_unused=True)
            outcomes.append((out, [torch.zeros(7, 3) if g is None else g for g in grads]))
        torch.testing.assert_close(outcomes[1], outcomes[0])
    with mmrec.patch("layers"):
        assert type(torch.stack(x)) is Tensor and type(torch.stack([x[0][0], x[1][0]], dim=1)) is Tensor
        assert type(torch.stack([x[0], x[1].double()[:, :3].float()], dim=1)) is not Tensor
