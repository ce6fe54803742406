"""Every model in the box beside the rest of torch: compiled, exported, copied, pickled, under autocast, loaded."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import model_checks as checks
import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from smore_ext import Batch, Graph, Recommender, ops
from smore_ext.models import MODELS

NARROW = {"embedding_dim": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "SMORE": {**NARROW, "knn_k": 5},
    "LightGCN": NARROW,
    "MGCN": {**NARROW, "knn_k": 5},
    "FREEDOM": {**NARROW, "knn_k": 5},
    "BM3": {**NARROW, "dropout": 0.0},  # the compiler draws other masks
    "LATTICE": {**NARROW, "feature_dim": 6, "knn_k": 5},
    "VBPR": {**NARROW, "feature_dim": 6},
    **{name: {} for name in ("L3AE", "EASE", "TurboCF", "ItemKNN", "Popularity")},
}
TRAINED = [name for name in SETTINGS if SETTINGS[name]]
USERS = torch.tensor([0, 3, 5])
EACH, EACH_TRAINED = pytest.mark.parametrize("name", SETTINGS), pytest.mark.parametrize("name", TRAINED)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny.one_thread():
        yield


DATA = checks.dataset_with_features()


def untrained(name: str, seed: int = 1) -> Recommender:
    torch.manual_seed(seed)
    return MODELS[name](DATA, MODELS[name].config_class(**SETTINGS[name]))


def made(name: str, device: torch.device | str = "cpu") -> Recommender:
    model = untrained(name)
    if model.closed_form:
        model.fit(DATA)
    return model.to(device)


def step(model: Recommender, loss: Callable[..., Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    value = loss(batch)
    value.backward()
    return value.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same_scores(a: Recommender, b: Recommender) -> bool:
    users = USERS.to(next(iter(a.state_dict().values()), USERS).device)
    return torch.equal(a.eval().scores(users), b.eval().scores(users))


def test_every_model_is_here() -> None:
    assert {name for name in MODELS if ":" not in name and name != "Tiny"} == set(SETTINGS)


@EACH_TRAINED
def test_the_loss_compiles_without_a_break(name: str, device: torch.device) -> None:
    model = made(name, device)
    torch._dynamo.reset()
    compiled = torch.compile(model.loss, fullgraph=True, backend="aot_eager")
    whole = checks.batch(device)
    for batch in (
        (whole, whole.map(lambda ids: ids[:20])) if name == "LightGCN" else (whole,)
    ):  # a last, short batch too
        (ours, gradients), (wanted, exact) = step(model, compiled, batch), step(model, model.loss, batch)
        torch.testing.assert_close(ours, wanted)
        assert gradients.keys() == exact.keys()
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(gradient, exact[parameter], msg=lambda m, p=parameter: f"{p}: {m}")


class Scores(nn.Module):
    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: Tensor) -> Tensor:
        return self.model.scores(users)


@EACH
def test_scoring_is_exported_for_any_number_of_users(name: str, device: torch.device) -> None:
    model = made(name, device).eval()
    several = {"users": {0: torch.export.Dim("batch", min=2)}}
    program = torch.export.export(Scores(model), (USERS.to(device),), dynamic_shapes=several, strict=False).module()
    for users in (USERS, torch.arange(9) * 3):
        torch.testing.assert_close(program(users.to(device)), model.scores(users.to(device)))
    if name in ("EASE", "LightGCN"):
        with pytest.raises((RuntimeError, IndexError, AssertionError)):
            program(torch.tensor([0, checks.N_USERS], device=device))


def stored(model: Recommender) -> Recommender:
    return pickle.loads(pickle.dumps(model))


@EACH
@pytest.mark.parametrize("again", [copy.deepcopy, stored])
def test_a_model_is_copied_and_pickled(name: str, again: Callable[[Recommender], Recommender]) -> None:
    model = made(name)
    other = again(model)
    assert type(other) is type(model) and same_scores(other, model)
    if name not in TRAINED:
        return
    (loss, gradients), (wanted, exact) = (step(m.train(), m.loss, checks.batch()) for m in (other, model))
    assert torch.equal(loss, wanted) and gradients.keys() == exact.keys()
    assert all(torch.equal(gradients[p], exact[p]) for p in exact)
    with torch.no_grad():
        other.user_embedding.weight.zero_()
    assert not same_scores(other, model)


@EACH
@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_goes_to_another_model_and_device(name: str, assign: bool, device: torch.device) -> None:
    model, file = made(name), io.BytesIO()
    if name in TRAINED:
        with torch.no_grad():
            model.user_embedding.weight.mul_(2)
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = untrained(name, seed=2).to(device)
    other.load_state_dict(torch.load(file, map_location=device, weights_only=True), assign=assign)
    back = untrained(name, seed=3)
    back.load_state_dict({key: value.cpu() for key, value in other.state_dict().items()})
    assert same_scores(back, model)
    if device.type == "cpu":
        assert same_scores(other, model)
    else:
        torch.testing.assert_close(other.eval().scores(USERS.to(device)).cpu(), model.eval().scores(USERS))
    other.to("meta")  # all of it goes along
    kept = {"edges[0]", "edges[1]", "chance"}  # of FREEDOM, whose graphs are drawn on the CPU
    assert all(tensor.is_meta or part in kept for part, tensor in other._tensors())


@EACH
def test_autocast_keeps_losses_and_gradients_in_float32(name: str, device: torch.device) -> None:
    model, batch = made(name, device), checks.batch(device)
    wanted = model.scores(USERS.to(device)).detach()
    with torch.autocast(device.type, torch.bfloat16):
        scores = model.scores(USERS.to(device)).detach()
    torch.testing.assert_close(scores.float(), wanted, rtol=0.05, atol=0.05)
    if name in TRAINED:
        exact = model.loss(batch).detach()
        with torch.autocast(device.type, torch.bfloat16):
            loss = model.loss(batch)
        loss.backward()
        torch.testing.assert_close(loss.detach(), exact, rtol=0.05, atol=0.05)
        assert loss.dtype == torch.float32
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())


class Negatives(Dataset[Any]):
    """Draws negatives and cuts a graph in whichever process asks."""

    def __init__(self, seen: Graph) -> None:
        self.seen = seen

    def __len__(self) -> int:
        return 3

    def __getitem__(self, n: int) -> tuple[int, Tensor, Graph, Tensor]:
        worker = get_worker_info()
        users, x = torch.arange(self.seen.n_rows), torch.ones(self.seen.n_cols, 4)
        drawn = ops.sample_negatives(users, self.seen, torch.arange(self.seen.n_cols), seed=1, offset=n)
        part = self.seen.rows(users[n:])
        return -1 if worker is None else worker.id, drawn, part, ops.spmm(part, x)


def first(entries: list[Any]) -> Any:
    return entries[0]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_use_the_ops_and_send_graphs(how: str) -> None:
    torch.set_num_threads(2)
    data = Negatives(DATA.seen)
    here = [data[n] for n in range(3)]  # threads have run before the fork
    loader = DataLoader(data, num_workers=1, multiprocessing_context=how, collate_fn=first, timeout=120)
    for (worker, negatives, part, y), (_, wanted, own, z) in zip(loader, here, strict=True):
        assert worker == 0 and torch.equal(negatives, wanted) and torch.equal(y, z)
        assert part.shape == own.shape and torch.equal(part.col, own.col) and torch.equal(part.weight, own.weight)
        assert torch.equal(ops.spmm(part, torch.ones(part.n_cols, 2)), ops.spmm(own, torch.ones(own.n_cols, 2)))


class Objective(nn.Module):
    """What torch.func calls: a function of the parameters."""

    def __init__(self, model: Recommender, of: Callable[[Recommender], Tensor]) -> None:
        super().__init__()
        self.model, self.of = model, of

    def forward(self) -> Tensor:
        return self.of(self.model)


def gradients_by_func(objective: Objective) -> dict[str, Tensor]:
    parameters = {name: p.detach() for name, p in objective.named_parameters()}
    return torch.func.grad(lambda p: torch.func.functional_call(objective, p, ()))(parameters)


def test_function_transforms_of_a_model() -> None:
    """Its embeddings are linear ops and torch's own; its loss is not, and says so; with the plain ops it can be."""
    model = made("LightGCN")
    spread = Objective(model, lambda m: torch.cat(m.embeddings()).pow(3).sum())
    spread().backward()
    for name, gradient in gradients_by_func(spread).items():
        torch.testing.assert_close(gradient, spread.get_parameter(name).grad)
    with pytest.raises(RuntimeError, match="bpr_loss: torch.func's grad, .*or smore_ext.reference.bpr_loss"):
        gradients_by_func(Objective(model, lambda m: m.loss(checks.batch())))
    config = model.config_class(**NARROW, backend="reference")
    plain = MODELS["LightGCN"](DATA, config)
    plain.load_state_dict(model.state_dict())
    exact = step(model, model.loss, checks.batch())[1]
    for name, gradient in gradients_by_func(Objective(plain, lambda m: m.loss(checks.batch()))).items():
        torch.testing.assert_close(gradient, exact[name.removeprefix("model.")])
