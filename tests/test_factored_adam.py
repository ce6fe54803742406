"""FactoredAdam and TableLinear in every way that people train: the table ends where torch's Adam puts it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from smore_ext import ops
from smore_ext.models import FactoredAdam, FactoredGrad, TableLinear
from smore_ext.models.table_linear import advanced

Optimizer = torch.optim.Optimizer
N, WIDTH, D = 20, 24, 4


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(N, WIDTH))
        self.projection = TableLinear(WIDTH, D)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(D, 1)

    def of(self, table: Tensor) -> Tensor:
        return self.head(torch.tanh(self.projection(table))).square().mean()

    def forward(self) -> Tensor:
        return self.of(self.table)


def adam(model: Model, factored: bool) -> Optimizer:
    if factored:
        return FactoredAdam(model.parameters(), [(model.table, model.projection)], lr=1e-2)
    return torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)


def loop(loss: Callable[[Model], Tensor] = Model.forward, before_step: Callable[[Model], object] = lambda model: None):
    def train(model: Model, optimizer: Optimizer) -> Model:
        for _ in range(5):
            optimizer.zero_grad()
            loss(model).backward()
            before_step(model)
            optimizer.step()
        return model

    return train


def replaced_data(model: Model) -> None:
    grad = model.table.grad
    grad.data = torch.where(grad > 0, grad, torch.zeros(()))


def as_a_vector(model: Model) -> None:
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    vector = nn.utils.parameters_to_vector(grads)
    nn.utils.vector_to_parameters(vector / vector.norm(), grads)


def model_zero_grad(model: Model, optimizer: Optimizer) -> Model:
    for step in range(6):
        if step % 2:
            model.zero_grad(set_to_none=step % 4 == 1)
        else:
            for parameter in model.parameters():
                parameter.grad = None
        model().backward()
        optimizer.step()
    return model


def scaler(infinite: int | None):
    def train(model: Model, optimizer: Optimizer) -> Model:
        scale = torch.amp.GradScaler("cpu", growth_interval=1)
        for step in range(6):
            optimizer.zero_grad()
            scale.scale(model() * (float("inf") if step == infinite else 1)).backward()
            if step % 2:
                scale.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            scale.step(optimizer)
            scale.update()
        return model

    return train


def probing(model: Model, optimizer: Optimizer) -> Model:
    for _ in range(5):
        optimizer.zero_grad()
        loss = model()
        torch.autograd.grad(loss, [model.projection.weight], retain_graph=True)
        of_table = torch.autograd.grad(loss, [model.table], retain_graph=True)[0]
        assert (of_table * 1).shape == model.table.shape
        loss.backward()
        optimizer.step()
    return model


def accumulating(count: int):
    def train(model: Model, optimizer: Optimizer) -> Model:
        for _ in range(4):
            optimizer.zero_grad()
            for part in range(count):
                (model() * (part + 1)).backward()
            optimizer.step()
        return model

    return train


def projection_first(model: Model, optimizer: Optimizer) -> Model:
    other = torch.optim.Adam(model.projection.parameters(), lr=0.1, fused=True)
    for _ in range(5):
        optimizer.zero_grad()
        model().backward()
        other.step()
        optimizer.step()
    return model


def other_optimizer(model: Model, _: Optimizer) -> Model:
    return loop()(model, torch.optim.SGD(model.parameters(), lr=1.0))


def group_settings(**settings: object):
    def train(model: Model, optimizer: Optimizer) -> Model:
        for group in optimizer.param_groups:
            group.update(settings)
        return loop()(model, optimizer)

    return train


def hooks(model: Model, optimizer: Optimizer) -> Model:
    model.table.register_hook(lambda grad: grad * 3)
    model.table.register_hook(lambda grad: grad.clamp(-1e-3, 1e-3))
    return loop()(model, optimizer)


def frozen(model: Model, optimizer: Optimizer) -> Model:
    model.projection.requires_grad_(False)
    return loop()(model, optimizer)


def copied(model: Model, optimizer: Optimizer) -> Model:
    loop()(model, optimizer)
    return loop()(*copy.deepcopy((model, optimizer)))


def pickled(model: Model, optimizer: Optimizer) -> Model:
    loop()(model, optimizer)
    model().backward()
    return loop()(*pickle.loads(pickle.dumps((model, optimizer))))


def mask(model: Model) -> Tensor:
    kept = torch.rand(N, WIDTH, generator=torch.Generator().manual_seed(1)) > 0.3
    return model.of(model.table * kept)


LOOPS: dict[str, Callable[[Model, Optimizer], Model]] = {
    "as documented": loop(),
    "model.zero_grad and grad = None": model_zero_grad,
    "clip_grad_norm_": loop(lambda m: 100 * m(), lambda m: nn.utils.clip_grad_norm_(m.parameters(), 1e-3)),
    "clip_grad_norm_, maximum": loop(
        before_step=lambda m: nn.utils.clip_grad_norm_(m.parameters(), 1e-3, float("inf"))
    ),
    "clip_grad_value_": loop(before_step=lambda m: nn.utils.clip_grad_value_(m.parameters(), 1e-4)),
    "GradScaler": scaler(None),
    "GradScaler, one infinite step": scaler(2),
    "probing gradients": probing,
    "two backward passes": accumulating(2),
    "many backward passes": accumulating(9),
    "penalty on the table": loop(lambda m: m() + m.table.square().mean()),
    "penalty before the layer's gradient": loop(lambda m: m.table.abs().mean() + m()),
    "layer norm before the layer": loop(lambda m: m.of(m.norm(m.table))),
    "mask before the layer": loop(mask),
    "slice of the table": loop(lambda m: m.of(m.table[3:9])),
    "table read twice": loop(lambda m: m() + m.of(m.table).sqrt()),
    "frozen projection": frozen,
    "projection stepped first": projection_first,
    "another optimizer": other_optimizer,
    "weight decay": group_settings(weight_decay=0.1),
    "maximize": group_settings(maximize=True),
    "amsgrad": group_settings(amsgrad=True),
    "tensor hooks": hooks,
    "gradient's data halved": loop(before_step=lambda m: m.table.grad.data.mul_(0.5)),
    "gradient's data replaced": loop(before_step=replaced_data),
    "clipped by hand as a vector": loop(before_step=as_a_vector),
    "deepcopy": copied,
    "pickle": pickled,
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_table_is_where_torchs_adam_puts_it(name: str) -> None:
    ours, plain = Model(), Model()
    trained = LOOPS[name](ours, adam(ours, True)), LOOPS[name](plain, adam(plain, False))
    for key, value in trained[1].state_dict().items():
        torch.testing.assert_close(trained[0].state_dict()[key], value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(trained[1].table, Model().table)


@pytest.mark.parametrize(
    "name", ["as documented", "clip_grad_norm_", "two backward passes", "tensor hooks", "penalty on the table"]
)
def test_the_product_is_formed_only_where_it_must_be(name: str) -> None:
    model = Model()
    LOOPS[name](model, adam(model, True))
    factored = isinstance(model.table.grad, FactoredGrad) and model.table.grad.factors is not None
    assert factored == (name not in ("tensor hooks", "penalty on the table"))


def test_step_hooks_run_once_a_step() -> None:
    model, calls = Model(), []
    torch.optim.Adam(model.parameters())  # patches Adam.step with its hooks
    optimizer = adam(model, True)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    loop()(model, optimizer)
    assert calls == ["before", "after"] * 5


def test_a_factored_gradient_is_a_tensor_like_any_other() -> None:
    rows, factor = torch.randn(N, D), torch.randn(D, WIDTH)
    product = rows @ factor

    def grad() -> FactoredGrad:
        return FactoredGrad(rows, factor)

    kept = grad()
    assert kept.shape == product.shape and kept.dtype == product.dtype and "rank 4" in repr(kept)
    torch.testing.assert_close(kept.norm(), product.norm())
    torch.testing.assert_close(torch.linalg.vector_norm(kept, dtype=torch.float64), product.double().norm())
    assert kept.factors is not None
    for ours, plain in (
        (grad() + grad(), product + product),
        (grad() * 2, product * 2),
        (2 * grad(), product * 2),
        (grad() / torch.tensor(3.0), product / 3),
        (-grad(), -product),
        (grad() + 1, product + 1),
        (torch.add(grad(), grad(), alpha=-0.5), product * 0.5),
        (grad().clone(), product),
        (grad().T, product.T),
        (grad()[2:5], product[2:5]),
        (grad().double(), product.double()),
        (grad() * product, product * product),
        (grad().abs().amax(), product.abs().amax()),
    ):
        torch.testing.assert_close(ours + 0, plain, check_dtype=False)
    assert (grad().numpy() == product.numpy()).all()
    assert type(copy.deepcopy(kept)) is Tensor and type(pickle.loads(pickle.dumps(grad()))) is Tensor
    file = io.BytesIO()
    torch.save(grad(), file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True), product)


def test_what_is_written_to_a_factored_gradient_stays_and_its_clone_is_apart() -> None:
    rows, factor = torch.randn(N, D), torch.randn(D, WIDTH)
    grad = FactoredGrad(rows, factor)
    alias, clone = grad.detach(), grad.clone()
    grad.mul_(2)
    torch.testing.assert_close(alias + 0, 2 * (rows @ factor))
    alias.clamp_(-0.5, 0.5)
    torch.testing.assert_close(grad + 0, (2 * (rows @ factor)).clamp(-0.5, 0.5))
    torch.testing.assert_close(clone + 0, rows @ factor)
    grad.zero_()
    assert not (alias + 0).any()
    grad.copy_(clone)
    torch.testing.assert_close(alias + 0, rows @ factor)


def test_the_op_raises_versions_and_refuses_leaves_that_record() -> None:
    moments, rows, factor = [torch.zeros(3, 5), torch.zeros(3, 5)], torch.randn(3, 2), torch.randn(2, 5)
    table = nn.Parameter(torch.randn(3, 5))
    with pytest.raises(RuntimeError, match=r"must not require grad.*shape \[3, 5\]; call it under torch.no_grad"):
        ops.factored_adam_(table, *moments, rows, factor, torch.tensor(1.0), 0.1)
    weight = torch.randn(2, 5, requires_grad=True)
    loss = (table @ weight.T).sum()
    before = [t._version for t in (table, *moments)]
    with torch.no_grad():
        ops.factored_adam_(table, *moments, rows, factor, torch.tensor(1.0), 0.1)
    assert [t._version for t in (table, *moments)] == [version + 1 for version in before]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def _replica(rank: int, port: int, results: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = Model()
    parallel = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = adam(model, True)
    for step in range(4):
        optimizer.zero_grad()
        # On odd steps one replica does not use the table at all.
        loss = parallel() if step % 2 == 0 or rank == 0 else model.head.weight.square().sum() + 0 * parallel()
        (loss * (rank + 1)).backward()
        optimizer.step()
    torch.save(model.state_dict(), f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_replicas_stay_together_under_distributed_data_parallel(tmp_path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_replica, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["table"], Model().table)


def read_by_torch(model: Model) -> Tensor:
    return nn.functional.linear(model.table, model.projection.weight, model.projection.bias).square().mean()


def test_a_table_that_its_layer_does_not_read_is_told_once() -> None:
    model = Model()
    optimizer = adam(model, factored=True)
    with pytest.warns(
        UserWarning, match=r"a table of shape \(20, 24\) has an ordinary gradient.* read it as linear\(table\)"
    ) as told:
        loop(read_by_torch)(model, optimizer)
    assert len(told) == 1 and told[0].filename == __file__
    plain = Model()
    loop(read_by_torch)(plain, adam(plain, factored=False))
    torch.testing.assert_close(model.table, plain.table)


def test_a_table_that_its_layer_reads_no_more_is_told() -> None:
    model = Model()
    optimizer = adam(model, factored=True)
    loop(Model.forward)(model, optimizer)
    with pytest.warns(UserWarning, match="has an ordinary gradient"):
        loop(read_by_torch)(model, optimizer)


@pytest.mark.parametrize("loss", [Model.forward, lambda model: model() + 1e-3 * model.table.square().sum()])
def test_a_table_that_its_layer_reads_is_not_told(
    loss: Callable[[Model], Tensor], recwarn: pytest.WarningsRecorder
) -> None:
    model = Model()
    loop(loss)(model, adam(model, factored=True))
    assert not [w for w in recwarn if "FactoredAdam" in str(w.message)]


def test_a_layer_without_bias() -> None:
    table, weight = (torch.randn(n, WIDTH, dtype=torch.float64, requires_grad=True) for n in (N, D))
    ours, plain = ops.table_linear(table, weight), torch.nn.functional.linear(table, weight)
    torch.testing.assert_close(ours, plain)
    assert torch.equal(ops.table_linear(table, weight, None), ours)
    gradients = [torch.autograd.grad(y.square().sum(), (table, weight)) for y in (ours, plain)]
    torch.testing.assert_close(*gradients)
    models = [Model(), Model()]
    for model in models:
        model.projection = TableLinear(WIDTH, D, bias=False)
        nn.init.ones_(model.projection.weight)
        assert model.projection.bias is None
        torch.testing.assert_close(model.projection(model.table), model.table @ model.projection.weight.T)
    ours, plain = (loop()(model, adam(model, factored=n == 0)) for n, model in enumerate(models))
    torch.testing.assert_close(ours.table, plain.table)
    torch.testing.assert_close(ours.projection.weight, plain.projection.weight)


@pytest.mark.parametrize("copied", [False, True])
def test_the_op_called_directly_leaves_factors_too(copied: bool) -> None:
    model = Model()
    optimizer = FactoredAdam(model.parameters(), [(model.table, model.projection)])
    if copied:
        model, optimizer = copy.deepcopy((model, optimizer))
    layer = model.projection

    def read(table: Tensor) -> Tensor:
        return ops.table_linear(table, layer.weight, layer.bias)

    assert torch.equal(read(model.table), layer(model.table))
    read(model.table).square().sum().backward()
    assert isinstance(model.table.grad, FactoredGrad) and model.table.grad.factors is not None
    optimizer.step()
    assert model.table.grad.factors is not None  # it was not formed
    for other in (model.table[1:], model.table * 1, model.table.detach().clone().requires_grad_()):
        grad = torch.autograd.grad(read(other).sum(), other)[0]
        assert type(grad) is Tensor
    with torch.no_grad():
        assert not read(model.table).requires_grad


def test_the_number_of_a_step_is_counted_along() -> None:
    """What a step on a GPU does, so that the host does not wait; it is read where somebody else has written."""
    step, other = torch.zeros(()), torch.tensor(7.0)
    for number in (1, 2, 3):
        assert advanced(step).item() == step.item() == number
    assert advanced(other).item() == other.item() == 8
    step.fill_(40)
    assert advanced(step).item() == step.item() == 41 and advanced(step).item() == 42
    assert advanced(step.clone()).item() == 43
    step.data.fill_(100)  # raises no version: whoever still counts does not look
    number = advanced(step)
    assert number.item() == 43 and number.device.type == "cpu" and number.dtype == torch.float64


def test_a_model_that_is_moved_to_where_it_is_keeps_its_gradients() -> None:
    models = [Model(), Model()]
    for n, model in enumerate(models):
        optimizer = adam(model, factored=n == 0)
        model().backward()
        model.to("cpu")  # hands each gradient its own data
        optimizer.step()
        optimizer.zero_grad()
        loop()(model, optimizer)
    torch.testing.assert_close(models[0].table, models[1].table)
    grad = FactoredGrad(torch.ones(2, 1), torch.ones(1, 3))
    grad.data = FactoredGrad(torch.ones(2, 1), torch.full((1, 3), 2.0))
    assert torch.equal(grad.dense(), torch.full((2, 3), 2.0))
