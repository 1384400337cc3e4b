"""A pruned model can be copied, stored, compiled, exported and trained like any other."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import prune_core.functional as prune


def pruned():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    prune.random_unstructured(model[0], "weight", 0.5)
    prune.ln_structured(model[0], "weight", 1, n=2, dim=0)
    prune.l1_unstructured(model[0], "bias", 1)
    prune.l1_unstructured(model[3], "weight", 0.5)
    return model


@pytest.fixture
def x():
    return torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)


@pytest.fixture
def model(x):
    """A pruned model that has been trained on."""
    model = pruned()
    model(x).sum().backward()
    return model


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, saved]
    + [lambda m, p=p: pickle.loads(pickle.dumps(m, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)],
)
def test_copies_are_equal_and_independent(model, x, duplicate):
    twin = duplicate(model)
    expected = model(x)
    assert torch.equal(twin(x), expected)
    assert type(twin[0]) is type(model[0])
    assert twin[0].weight.grad_fn is not None
    assert isinstance(twin[0].weight_orig, nn.Parameter)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(model(x), expected)
    prune.l1_unstructured(twin[0], "weight", 1)
    prune.remove(twin[0], "weight")
    assert type(model[0]) is not type(twin[0])


def test_a_copy_of_recurrent_layers_in_use():
    lstm = prune.l1_unstructured(nn.LSTM(3, 4), "weight_hh_l0", 0.5)
    x = torch.randn(5, 1, 3)
    for _ in range(2):
        lstm(x)[0].sum().backward()
    twin = copy.deepcopy(lstm)
    assert torch.equal(twin(x)[0], lstm(x)[0])
    assert twin.weight_hh_l0_orig is not lstm.weight_hh_l0_orig


def test_a_pickle_is_read_by_a_fresh_process(model, x, tmp_path):
    (tmp_path / "model").write_bytes(pickle.dumps((model, x)))
    script = (
        "import pickle, sys; model, x = pickle.load(open(sys.argv[1], 'rb'));"
        "print(model[0], model(x).sum().item(), model[0].weight.grad_fn is not None)"
    )
    output = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.strip() == f"{model[0]} {model(x).sum().item()} True"


def test_a_state_dict_goes_to_a_freshly_pruned_model(model, x):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = pruned()
    for module, name in ((other[0], "weight"), (other[3], "weight")):
        with torch.no_grad():
            getattr(module, f"{name}_orig").normal_()
            getattr(module, f"{name}_mask").fill_(1)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("strict", [False, True])
def test_export(model, x, strict):
    exported = torch.export.export(model, (x,), strict=strict)
    assert torch.equal(exported.module()(x), model(x))
    assert "0.weight_orig" in exported.graph_signature.parameters
    assert "0.weight_mask" in exported.graph_signature.buffers
    model(x).sum().backward()
    copy.deepcopy(model)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_follows_training_and_pruning(model, x, backend):
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), model(x))
        compiled(x).sum().backward()
        optimizer.step()
    copy.deepcopy(model)
    prune.l1_unstructured(model[3], "weight", 0.5)
    torch.testing.assert_close(compiled(x), model(x))
    prune.remove(model[3], "weight")
    torch.testing.assert_close(compiled(x), model(x))


def test_autocast(model, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
    assert output.dtype == torch.bfloat16
    model.zero_grad()
    output.sum().backward()
    grad = model[3].weight_orig.grad
    assert grad.dtype == torch.float32
    assert grad[model[3].weight_mask == 0].count_nonzero() == 0


def test_an_optimizer_made_before_pruning_goes_on_to_the_end(x):
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    parameter = layer.weight

    def step():
        optimizer.zero_grad()
        before = parameter.detach().clone()
        layer(x).square().sum().backward()
        optimizer.step()
        return parameter.detach() != before

    step()
    prune.l1_unstructured(layer, "weight", 6)
    assert layer.weight_orig is parameter
    assert torch.equal(step(), layer.weight_mask == 1)
    prune.remove(layer, "weight")
    assert layer.weight is parameter
    assert int((layer.weight == 0).sum()) == 6
    assert step().all()


def test_moving_and_converting(model, x):
    model.to(torch.float64)
    assert model[0].weight.dtype == torch.float64
    assert model(x.double()).dtype == torch.float64
    with torch.device("meta"):
        assert copy.deepcopy(model).to("meta")[0].weight.is_meta


def test_parameters_given_for_one_call(model, x):
    given = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    assert torch.func.functional_call(model, given, (x,)).count_nonzero() == 0
