"""Models: native against reference, any number of modalities, the published weights, what the loop asks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.utils import prune

from smore_ext import SMORE, Dataset, LightGCN, LightGCNConfig, Popularity, SMOREConfig, reference
from smore_ext.data import Pairs
from smore_ext.models import MODELS, FactoredAdam, FactoredGrad, TableLinear
from smore_ext.models.smore_state import official_names
from smore_ext.training.optimizers import adam

N_USERS, N_ITEMS = 60, 45


def pairs(generator: torch.Generator, count: int) -> Pairs:
    flat = torch.randperm(N_USERS * N_ITEMS, generator=generator)[:count]
    return Pairs(flat // N_ITEMS, flat % N_ITEMS)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    everything = pairs(generator, 700)
    split = [Pairs(everything.users[a:b], everything.items[a:b]) for a, b in ((0, 500), (500, 600), (600, 700))]
    features = {
        m: torch.randn(N_ITEMS, width, generator=generator) for m, width in (("audio", 9), ("image", 33), ("text", 12))
    }
    return Dataset.from_pairs("made", N_USERS, N_ITEMS, *split, features, {})


def config(**changes) -> SMOREConfig:
    settings = {"embedding_dim": 16, "n_ui_layers": 3, "knn_k": 5, "batch_size": 128, "reg_weight": 0.01}
    return SMOREConfig(**{**settings, "cl_weight": 0.1, **changes})


def batch(dataset: Dataset, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    at = torch.randint(dataset.train.users.shape[0], (128,), generator=generator)
    return dataset.train.users[at], dataset.train.items[at], torch.randint(N_ITEMS, (128,), generator=generator)


def three_of(make, device):
    """One set of weights as native float32 on the device under test, reference float32 and reference float64."""
    torch.manual_seed(4)
    native = make("native")
    plain, exact = make("reference"), make("reference").double()
    plain.load_state_dict(native.state_dict())
    exact.load_state_dict(native.state_dict())
    return native.to(device), plain, exact


def loss_of(model, triples) -> torch.Tensor:
    """The model's loss on a batch, which goes where the model is."""
    device = next(model.parameters()).device
    return model.loss(*(ids.to(device) for ids in triples))


def assert_rule(ours, plain, exact, factor: float) -> None:
    ours = ours.cpu()
    error, allowed = (ours.double() - exact).abs().max(), (plain.double() - exact).abs().max()
    unit = torch.finfo(torch.float32).eps * exact.abs().max()
    assert error <= factor * allowed + unit, f"error {error:.3e}, plain {allowed:.3e}"


MAKERS = {
    "smore-2": lambda data: lambda backend: SMORE(data, config(backend=backend, modalities=("image", "text"))),
    "smore-1": lambda data: lambda backend: SMORE(data, config(backend=backend, modalities=("audio",))),
    "smore-3-odd": lambda data: lambda backend: SMORE(data, config(backend=backend, embedding_dim=15)),
    "smore-8-frequencies": lambda data: lambda backend: SMORE(data, config(backend=backend, spectral=5)),
    "smore-no-filter": lambda data: lambda backend: SMORE(data, config(backend=backend, spectral=False)),
    "smore-2-layers": lambda data: lambda backend: SMORE(data, config(backend=backend, n_mm_layers=2)),
    "lightgcn": lambda data: lambda backend: LightGCN(data, LightGCNConfig(16, 3, 0.01, 128, backend)),
    "matrix-factorisation": lambda data: lambda backend: LightGCN(data, LightGCNConfig(16, 0, 0.01, 128, backend)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_loss_and_every_gradient_match_the_reference(dataset: Dataset, device: torch.device, name: str) -> None:
    models = three_of(MAKERS[name](dataset), device)
    losses = [loss_of(model, batch(dataset)) for model in models]
    assert_rule(*(loss.detach() for loss in losses), factor=2)
    grads = []
    for model, loss in zip(models, losses, strict=True):
        loss.backward()
        grads.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() == grads[2].keys()
    expected = {key for key, _ in models[0].named_parameters()}
    if "no-filter" in name:
        expected = {key for key in expected if "filter" not in key}
    assert grads[0].keys() == expected
    for key in grads[0]:
        assert_rule(grads[0][key], grads[1][key], grads[2][key], factor=4)
    for rows in zip(*(model.embeddings() for model in models), strict=True):
        assert_rule(*(r.detach() for r in rows), factor=2)


def test_without_filters_smore_is_smore_with_filters_of_one(dataset: Dataset, device: torch.device) -> None:
    torch.manual_seed(4)
    plain = SMORE(dataset, config(spectral=False)).to(device).eval()
    filtered = SMORE(dataset, config()).to(device).eval()
    filtered.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for weight in (*filtered.filter.values(), filtered.fusion_filter):
            weight.copy_(torch.tensor([1.0, 0.0], device=device).expand_as(weight))
        for ours, same in zip(plain.embeddings(), filtered.embeddings(), strict=True):
            torch.testing.assert_close(ours, same, rtol=1e-5, atol=1e-6)


def test_frequencies_that_are_not_kept_get_no_gradient(dataset: Dataset, device: torch.device) -> None:
    model = SMORE(dataset, config(spectral=3)).to(device)
    loss_of(model, batch(dataset)).backward()
    for weight in (*model.filter.values(), model.fusion_filter):
        assert weight.grad is not None and weight.grad[0, :3].any() and not weight.grad[0, 3:].any()


@pytest.mark.parametrize("name", ["smore-2", "lightgcn"])
def test_twenty_adam_steps_match_the_reference(dataset: Dataset, device: torch.device, name: str) -> None:
    models = three_of(MAKERS[name](dataset), device)
    for model in models:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        for step in range(20):
            optimizer.zero_grad()
            loss_of(model, batch(dataset, step)).backward()
            optimizer.step()
    for key, exact in models[2].state_dict().items():
        assert_rule(models[0].state_dict()[key], models[1].state_dict()[key], exact, factor=4)


def formed(grad: torch.Tensor) -> bool:
    """Whether a gradient's elements stand in memory."""
    return not (isinstance(grad, FactoredGrad) and grad.factors is not None)


def test_factored_adam_steps_match_the_reference(dataset: Dataset, device: torch.device) -> None:
    """No table's gradient is formed, and twenty steps stay within the rule of what torch's Adam does with one."""
    models = three_of(MAKERS["smore-2"](dataset), device)
    for i, model in enumerate(models):
        optimizer = adam(model, lr=1e-3, fused=True)
        assert isinstance(optimizer, FactoredAdam) == (i == 0)
        for step in range(20):
            optimizer.zero_grad()
            loss_of(model, batch(dataset, step)).backward()
            optimizer.step()
            assert all(formed(p.grad) == (i > 0) for p in model.features.values())
    for key, exact in models[2].state_dict().items():
        assert_rule(models[0].state_dict()[key], models[1].state_dict()[key], exact, factor=4)


def test_factored_adam_adds_backward_passes_and_keeps_the_state_of_adam(dataset: Dataset) -> None:
    results = []
    for factored in (True, False):
        torch.manual_seed(3)
        model = SMORE(dataset, config())
        optimizer = adam(model, 1e-2, fused=True) if factored else torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(4):
            if step == 2:  # a state dict of one kind suits the other, and the rate of the loaded group counts
                kind = torch.optim.Adam(model.parameters(), fused=True) if factored else adam(model, 1.0, True)
                kind.load_state_dict(optimizer.state_dict())
                optimizer = kind
                if not factored:
                    optimizer.param_groups[0]["lr"] = 1e-2
            optimizer.zero_grad()
            for part in (0, 1):
                model.loss(*batch(dataset, 2 * step + part)).backward()
            optimizer.step()
        results.append(model.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-3, atol=1e-4)


def test_factored_adam_refuses_foreign_tables() -> None:
    table, layer = torch.nn.Parameter(torch.zeros(3, 4)), TableLinear(4, 2)
    with pytest.raises(ValueError, match="must be among params"):
        FactoredAdam(layer.parameters(), [(table, layer)])
    with pytest.raises(ValueError, match=r"must have 5 columns.*got shape \(3, 4\)"):
        FactoredAdam([table], [(table, TableLinear(5, 2))])


def test_loss_follows_the_formula_on_all_nodes(dataset: Dataset) -> None:
    """The loss computes step 6 for the batch's nodes only; here it is written out over all nodes."""
    model = SMORE(dataset, config(backend="reference", modalities=("image", "text"))).double()
    users, positives, negatives = batch(dataset)
    behaviour, side = model()
    final_users, final_items = model.embeddings()
    u, p, n = final_users[users], final_items[positives], final_items[negatives]
    expected = -torch.nn.functional.logsigmoid((u * p).sum(1) - (u * n).sum(1)).mean()
    expected = expected + 0.01 * (u.square().sum() + p.square().sum() + n.square().sum()) / 2 / 128
    for at in (positives + N_USERS, users):
        a, b = (torch.nn.functional.normalize(t[at], dim=1) for t in (side, behaviour))
        scores = (a @ b.T / 0.2).exp()
        expected = expected - 0.1 * (scores.diagonal() / scores.sum(1)).log().mean()
    torch.testing.assert_close(model.loss(users, positives, negatives), expected)


def test_views_follow_the_formula(dataset: Dataset) -> None:
    """Forward pass of one modality, written out with dense matrices (docs/spec.md, section 1)."""
    model = SMORE(dataset, config(modalities=("image",))).double()
    e_user, e_item = model.user_embedding.weight, model.item_embedding.weight
    h = dataset.features["image"].double() @ model.projection["image"].weight.T + model.projection["image"].bias
    spectrum = torch.fft.rfft(h, norm="ortho")

    def filtered(weight):
        return torch.fft.irfft(spectrum * torch.view_as_complex(weight), n=16, norm="ortho")

    a_item, a = (g.to_sparse("coo").to_dense().double() for g in (model.item_graphs["image"], model.bipartite))
    r = a[:N_USERS, N_USERS:]
    view = a_item @ (e_item * model.feature_gate["image"](filtered(model.filter["image"])))
    fusion = a_item @ (e_item * model.fusion_gate(filtered(model.fusion_filter)))
    view, fusion = torch.cat([r @ view, view]), torch.cat([r @ fusion, fusion])
    layers = [torch.cat([e_user, e_item])]
    for _ in range(3):
        layers.append(a @ layers[-1])
    c = torch.stack(layers).mean(0)
    t_m = model.preference_gate["image"](c) * model.query["image"](fusion).softmax(1) * view
    t_f = model.fusion_preference_gate(c) * fusion
    final = c + (t_m + t_f) / 2
    torch.testing.assert_close(torch.cat(model.embeddings()), final)


def test_the_item_graphs_do_not_follow_the_trained_features(dataset: Dataset) -> None:
    before = dataset.features["image"].clone()
    model = SMORE(dataset, config())
    weights = model.item_graphs["image"].weight.clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model.loss(*batch(dataset)).backward()
    optimizer.step()
    assert not torch.equal(model.features["image"], before)
    assert torch.equal(model.item_graphs["image"].weight, weights) and torch.equal(dataset.features["image"], before)


def test_frozen_features_stay(dataset: Dataset) -> None:
    model = SMORE(dataset, config(freeze_features=True))
    model.loss(*batch(dataset)).backward()
    assert all(p.grad is None for p in model.features.values())
    assert model.projection["image"].weight.grad is not None


def test_dropout_is_off_in_evaluation(dataset: Dataset) -> None:
    model = SMORE(dataset, config(dropout=0.5))
    assert not torch.equal(model.embeddings()[0], model.embeddings()[0])
    model.eval()
    assert torch.equal(model.embeddings()[0], model.embeddings()[0])


def side_by_side(model: SMORE) -> tuple[torch.Tensor, torch.Tensor]:
    """Side information of all nodes, fused and module by module."""
    (behaviour, views), *_ = model._blocks()
    return model._side(behaviour, views), sum(model._side_parts(behaviour, views).values())


def test_fused_side_information_is_that_of_the_modules(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SMORE(dataset, config(dropout=0.3, modalities=("image", "text"))).eval()
    torch.testing.assert_close(*side_by_side(model), rtol=1e-5, atol=1e-6)
    model.train()
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([5]))
    (behaviour, views), *_ = model._blocks()
    gates = [model.preference_gate[m][0](behaviour) for m in model.modalities]
    gates.append(model.fusion_preference_gate[0](behaviour))
    fused_view = views[:, -behaviour.shape[1] :]
    attention = torch.stack([model.query[m](fused_view) for m in model.modalities])
    for p in (0.3, 0.6):
        model.dropout.p = p  # as people change it
        wanted = reference.modality_preference(torch.cat(gates, dim=1), attention, views, p, 0, 5)
        torch.testing.assert_close(model._side(behaviour, views), wanted, rtol=1e-5, atol=1e-6)
    model.dropout.eval()
    torch.testing.assert_close(*side_by_side(model), rtol=1e-5, atol=1e-6)


def test_a_changed_module_is_called(dataset: Dataset) -> None:
    """Hooks, pruned and quantised layers count: then nothing is fused."""
    model = SMORE(dataset, config(modalities=("image", "text"))).eval()
    before, seen = side_by_side(model)[0], []
    hook = model.preference_gate["image"].register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(side_by_side(model)[0], before, rtol=1e-5, atol=1e-6)
    assert seen
    hook.remove()
    prune.l1_unstructured(model.preference_gate["text"][0], "bias", amount=0.9)
    pruned = side_by_side(model)
    torch.testing.assert_close(*pruned, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(pruned[0], before, rtol=1e-3, atol=1e-5)
    for _ in range(2):  # the pruned weight is made anew before each call
        model.loss(*batch(dataset)).backward()
    model.fusion_preference_gate[0] = torch.nn.Identity()
    torch.testing.assert_close(*side_by_side(model), rtol=1e-5, atol=1e-6)


def test_official_state_dict_round_trip(dataset: Dataset) -> None:
    source = SMORE(dataset, config(modalities=("image", "text")))
    names = official_names(["image", "text"])
    official = {names[key]: value.clone() for key, value in source.state_dict().items()}
    assert official["image_complex_weight"].shape == (1, 9, 2)
    assert {"gate_v.0.weight", "query_t.2.weight", "gate_fusion_prefer.0.bias", "image_trs.bias"} <= official.keys()
    target = SMORE(dataset, config(modalities=("image", "text")))
    target.load_official_state_dict(official)
    assert all(torch.equal(a, b) for a, b in zip(source.embeddings(), target.embeddings(), strict=True))


def test_official_state_dict_errors_name_everything_at_once(dataset: Dataset) -> None:
    model = SMORE(dataset, config(modalities=("image", "text")))
    names = official_names(["image", "text"])
    official = {names[key]: value for key, value in model.state_dict().items()}
    del official["gate_v.0.bias"]
    official["surplus"] = torch.zeros(1)
    official["image_trs.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="missing gate_v.0.bias; unknown surplus; image_trs.weight must have shape"):
        model.load_official_state_dict(official)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_smore_compiles_without_graph_break(dataset: Dataset, backend: str) -> None:
    model = SMORE(dataset, config())
    expected = [e.detach() for e in model.embeddings()]
    torch._dynamo.reset()
    compiled = torch.compile(lambda: model.embeddings(), fullgraph=True, backend=backend)
    for ours, eager in zip(compiled(), expected, strict=True):
        torch.testing.assert_close(ours, eager)


def test_same_bits_for_any_number_of_threads_and_run_to_run(dataset: Dataset) -> None:
    results = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(2)
        model = SMORE(dataset, config())
        model.loss(*batch(dataset)).backward()
        # The dense layers are torch's own; ours are everything around them.
        results.append(model.user_embedding.weight.grad)
    assert torch.equal(results[1], results[2])
    torch.testing.assert_close(results[0], results[1])


def test_the_contrastive_term_grows_by_epochs_where_it_is_asked_to(dataset: Dataset, device: torch.device) -> None:
    """A loss that no loop has begun an epoch for has the whole term; so has every epoch without a warm-up."""
    users, items = dataset.train.users.to(device), dataset.train.items.to(device)
    torch.manual_seed(3)
    model = SMORE(dataset, config(cl_weight=0.5, cl_warmup=4)).to(device)
    torch.manual_seed(3)
    plain = SMORE(dataset, config(cl_weight=0.5, cl_warmup=0)).to(device)

    def parts(one: SMORE) -> dict[str, float]:
        one.loss(users, items, items.roll(1))
        return {name: float(value) for name, value in one.loss_parts.items()}

    whole = parts(plain)
    assert parts(model) == whole and whole["cl"] > 0
    for epoch, share in ((0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (90, 1.0)):
        for one in (model, plain):
            assert one.begin_epoch(epoch, torch.Generator()) is False
        assert parts(model) == whole | {"cl": pytest.approx(share * whole["cl"])}
        assert parts(plain) == whole
    assert (
        "cl_share" not in model.state_dict()
        and SMOREConfig().cl_warmup == 0
        and MODELS["MGCN"].config_class().cl_warmup == 0
    )


def test_popularity_ranks_by_train_counts(dataset: Dataset) -> None:
    users, items = Popularity(dataset).embeddings()
    counts = torch.bincount(dataset.train.items, minlength=N_ITEMS)
    assert torch.equal((users @ items.T)[7].long(), counts)


@pytest.mark.parametrize("name", ["SMORE", "MGCN"])
def test_evaluation_and_statistics_share_one_forward_pass(
    dataset: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS[name](dataset).eval()
    before = [t.clone() for t in model.embeddings()]
    figures, passes, views = model.statistics(), [], model.views
    monkeypatch.setattr(model, "views", lambda: passes.append(1) or views())
    with torch.no_grad(), model.one_forward():
        assert all(torch.equal(a, b) for a, b in zip(model.embeddings(), before, strict=True))
        assert model.statistics() == figures
    assert len(passes) == 1
    with torch.no_grad():
        model.item_embedding.weight.mul_(2)
    assert not torch.equal(model.embeddings()[1], before[1])  # nothing is kept for later weights


def test_statistics_are_finite_figures(dataset: Dataset) -> None:
    figures = SMORE(dataset, config()).statistics()
    assert figures and all(isinstance(v, float) and v == v for v in figures.values())


def test_a_copy_trains_like_the_original(dataset: Dataset) -> None:
    model = SMORE(dataset, config())
    again = copy.deepcopy(model)
    assert torch.equal(model.loss(*batch(dataset)), again.loss(*batch(dataset)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: config(embedding_dim=0), "embedding_dim must be at least 1 and finite, got 0"),
        (lambda data: config(knn_k={"image": 0}), "knn_k must be at least 1 and finite, got 0"),
        (lambda data: config(temperature=0), "temperature must be greater than 0 and finite, got 0"),
        (lambda data: config(dropout=1), r"dropout must be in \[0, 1\), got 1"),
        (lambda data: config(spectral=10), r"number of frequencies in 1\.\.9, got 10"),
        (lambda data: config(backend="fast"), "backend must be one of native, reference, got 'fast'"),
        (lambda data: config(cache_dir="~no-such-user/x"), "cache_dir must be a path, got ~no-such-user/x"),
        (lambda data: config(modalities=()), "at least one modality, each once, got none"),
        (lambda data: config(modalities=("image", "image")), "each once, got image, image"),
        (lambda data: config(cl_weight=float("inf")), "cl_weight must be at least 0 and finite, got inf"),
        (
            lambda data: SMORE(data, config(knn_k={"audio": 5, "image": 5, "text": 5, "video": 5})),
            "got audio, image, te",
        ),
        (lambda data: LightGCNConfig(n_ui_layers=-1), "n_ui_layers must be in 0..100, got -1"),
        (
            lambda data: SMORE(data, config(modalities=("video",))),
            "features of video; dataset 'made' has audio, image, text",
        ),
        (
            lambda data: SMORE(data, config(knn_k={"image": 5})),
            r"knn_k must name every modality \(audio, image, text\), got image",
        ),
        (lambda data: SMORE(data, config(knn_k=46)), r"knn_k must be at most 45, the items of .*, got 46: see --knn-k"),
    ],
)
def test_errors(dataset: Dataset, make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(dataset)


def test_a_copied_model_trains_its_tables_with_any_optimizer(dataset: Dataset) -> None:
    model = SMORE(dataset, config())
    optimizer = adam(model, 1e-3, fused=True)
    twin = copy.deepcopy(model)
    twin.loss(*batch(dataset)).backward()
    assert all(p.grad is not None for p in twin.features.values())
    del optimizer
    model.loss(*batch(dataset)).backward()
    assert all(p.grad is not None for p in model.features.values())
