"""Adapters of peft on sparse weights."""

import copy

import pytest
import torch
from torch import nn

from prune_core.errors import PruneError, PruneWarning
from prune_core.masking import PrunerModuleWrapper, replace_modules
from prune_recover import merge_lora, recover, sparse_lora

peft = pytest.importorskip("peft", reason="needs peft")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning")

X = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(1))
INPUTS = list(X.split(8))
PLACES = ["0", "3"]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 16), nn.Linear(16, 4)
    )


def sparse(model):
    """Half of the weights of two layers are zero, the first row of the second one wholly."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in PLACES:
            weight = model.get_submodule(name).weight
            weight[torch.rand(weight.shape, generator=generator) < 0.5] = 0
        model[3].weight[0] = 0
    return model


def zeros(model):
    return [model.get_submodule(name).weight == 0 for name in PLACES]


def adapted(model, **options):
    config = peft.LoraConfig(r=2, target_modules=PLACES, **options)
    return peft.get_peft_model(model, config)


@pytest.fixture
def dense():
    return net().eval()


def trained(dense, *, seen):
    model = sparse(copy.deepcopy(dense))
    before = zeros(model)
    model = adapted(model)
    if seen:
        model = sparse_lora(model)
    report = recover(model, INPUTS, teacher=dense, epochs=10, compare="mse", learning_rate=1e-2)
    assert report.loss_after < report.loss_before
    return model, before


def test_zeros_stay_through_training_and_merging_and_nothing_is_lost(dense):
    model, before = trained(dense, seen=True)
    wanted = model(X).detach()
    merged = merge_lora(model)
    assert type(merged) is nn.Sequential
    assert all(torch.equal(one, two) for one, two in zip(before, zeros(merged), strict=True))
    torch.testing.assert_close(merged(X), wanted, rtol=1e-5, atol=1e-5)
    assert merged.state_dict().keys() == dense.state_dict().keys()
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_merging_as_peft_does_it_would_fill_them(dense):
    model, before = trained(dense, seen=True)
    left = sum(int(zero.sum()) for zero in zeros(model.merge_and_unload()))
    assert left < sum(int(zero.sum()) for zero in before) / 5


def test_adapters_that_were_trained_without_zeros_are_merged_with_a_warning(dense):
    model, before = trained(dense, seen=False)
    with pytest.warns(PruneWarning, match=r"Call sparse_lora\(model\) before"):
        merged = merge_lora(model)
    assert all(torch.equal(one, two) for one, two in zip(before, zeros(merged), strict=True))


def test_adapters_can_be_switched_off(dense):
    base = sparse(copy.deepcopy(dense))
    wanted = base(X).detach()
    model, _ = trained(dense, seen=True)
    with model.disable_adapter():
        torch.testing.assert_close(model(X), wanted)
    assert not torch.allclose(model(X), wanted, atol=1e-3)


def test_a_copy_has_adapters_of_its_own(dense):
    model, _ = trained(dense, seen=True)
    wanted = model(X).detach()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    torch.testing.assert_close(model(X), wanted)
    assert not torch.allclose(other(X), wanted, atol=1e-3)


def test_weights_that_lie_the_other_way(dense):
    """The Conv1D of transformers has inputs first."""
    layers = pytest.importorskip("transformers.pytorch_utils", reason="needs transformers")
    torch.manual_seed(0)
    model = nn.Sequential(layers.Conv1D(8, 6), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[::2] = 0
    config = peft.LoraConfig(r=2, target_modules=["0"], fan_in_fan_out=True)
    model = sparse_lora(peft.get_peft_model(model, config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    x = torch.randn(5, 6)
    wanted = model(x).detach()
    merged = merge_lora(model)
    torch.testing.assert_close(merged(x), wanted)
    assert not merged[0].weight[::2].any()


def test_what_cannot_be_merged(dense):
    with pytest.raises(PruneError, match="has no adapter"):
        merge_lora(dense)
    with pytest.raises(PruneError, match="drops inputs"):
        sparse_lora(adapted(sparse(net()), lora_dropout=0.1))
    model = adapted(sparse(net()))
    model.merge_adapter()
    with pytest.raises(PruneError, match="is merged already"):
        merge_lora(model)
    model = net()
    replace_modules(model, {model[0]: PrunerModuleWrapper(model[0], "0", {})})
    with pytest.raises(PruneError, match="masked by wrappers"):
        merge_lora(model)
