"""What the methods do, on tensors small enough to check by hand."""

import gc
import weakref

import pytest
import torch
from torch import nn

import prune_core.functional as prune
from prune_core import PruneError
from prune_core.functional import derived


@pytest.fixture
def layer():
    linear = nn.Linear(4, 2)
    linear.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-4.0, -3.0, -2.0, -1.0]])
    return linear


def test_smallest_magnitudes_go_first_and_stay_gone(layer):
    prune.l1_unstructured(layer, "weight", amount=2)
    assert layer.weight.tolist() == [[0, 2, 3, 4], [-4, -3, -2, 0]]
    prune.l1_unstructured(layer, "weight", amount=2)
    assert layer.weight.tolist() == [[0, 0, 3, 4], [-4, -3, 0, 0]]


def test_of_equal_magnitudes_the_first_go(layer):
    layer.weight.data.fill_(1.0)
    prune.l1_unstructured(layer, "weight", amount=0.4)
    assert layer.weight_mask.tolist() == [[0, 0, 0, 1], [1, 1, 1, 1]]


def test_importance_scores_decide(layer):
    scores = torch.tensor([[4.0, 2.0, 1.0, 3.0], [-3.0, -1.0, -2.0, -4.0]])
    prune.l1_unstructured(layer, "weight", amount=2, importance_scores=scores)
    assert layer.weight.tolist() == [[1, 2, 0, 4], [-4, 0, -2, -1]]


def test_whole_columns_by_norm(layer):
    layer.weight.data = torch.tensor([[1.0, 9.0, 0.0, 2.0], [1.0, 9.0, 3.0, 0.0]])
    prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=1)
    assert layer.weight_mask.tolist() == [[0, 1, 1, 0]] * 2


def test_whole_rows_at_random(layer):
    prune.random_structured(layer, "weight", amount=1, dim=0)
    assert sorted(layer.weight_mask.tolist()) == [[0, 0, 0, 0], [1, 1, 1, 1]]


def test_a_mask_of_ones_own(layer):
    prune.custom_from_mask(layer, "weight", torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]]))
    assert layer.weight.tolist() == [[0, 2, 3, 4], [-4, -3, -2, 0]]


def test_a_tensor_without_a_module():
    t = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    before = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert prune.L1Unstructured(2).prune(t, before).tolist() == [[0, 0], [3, 0]]


def test_a_container_works_on_what_is_left():
    container = prune.PruningContainer()
    container._tensor_name = "temp"
    for method in (prune.L1Unstructured(2), prune.LnStructured(1, n=2, dim=0)):
        method._tensor_name = "temp"
        container.add_pruning_method(method)
    t = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    left = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 1]])
    assert container.compute_mask(t, left).tolist() == [[0, 0, 0, 0], [1, 1, 0, 1]]
    assert left.tolist() == [[1, 1, 1, 0], [1, 1, 0, 1]]
    assert len(container) == 2
    assert container[0].amount == 2


def test_channels_last_weights_can_be_pruned():
    conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    for prune_it in (prune.l1_unstructured, prune.random_unstructured):
        prune_it(conv, "weight", 0.5)
    assert int((conv.weight_mask == 0).sum()) == 72 + 36


def test_a_read_is_never_out_of_date(layer):
    prune.l1_unstructured(layer, "weight", amount=2)
    with torch.no_grad():
        layer.weight_orig.mul_(10)
    assert layer.weight.tolist() == [[0, 20, 30, 40], [-40, -30, -20, 0]]
    layer.weight_mask[0] = 0
    assert layer.weight.tolist() == [[0, 0, 0, 0], [-40, -30, -20, 0]]


def test_an_assigned_value_holds_until_the_next_forward(layer):
    prune.l1_unstructured(layer, "weight", amount=2)
    masked = layer.weight
    layer.weight = torch.zeros(2, 4)
    assert layer.weight.tolist() == [[0] * 4] * 2
    layer(torch.ones(4))
    assert torch.equal(layer.weight, masked)


def test_out_projection_that_is_never_called_itself():
    # Attention reads `out_proj.weight` without calling `out_proj`, so none of its hooks run.
    attention = nn.MultiheadAttention(8, 2)
    prune.l1_unstructured(attention.out_proj, "weight", 0.5)
    x = torch.randn(3, 1, 8)
    for _ in range(2):
        attention(x, x, x)[0].sum().backward()
    assert attention.out_proj.weight_orig.grad.count_nonzero() > 0


def test_recurrent_layers():
    lstm = nn.LSTM(3, 4)
    expected = lstm.weight_ih_l0
    prune.l1_unstructured(lstm, "weight_ih_l0", 1.0)
    assert sum(isinstance(w, nn.Parameter) for w in lstm._flat_weights) == 3
    x = torch.randn(5, 1, 3)
    assert torch.equal(lstm(x)[0], lstm(torch.zeros_like(x))[0])
    assert sum(isinstance(w, nn.Parameter) for w in lstm._flat_weights) == 3
    prune.remove(lstm, "weight_ih_l0")
    assert all(isinstance(w, nn.Parameter) for w in lstm._flat_weights)
    assert lstm.weight_ih_l0 is expected


def test_a_method_that_overrides_how_masks_apply(layer):
    class Faded(prune.L1Unstructured):
        def apply_mask(self, module):
            return super().apply_mask(module) / 2

    Faded.apply(layer, "weight", amount=2)
    assert layer.weight.tolist() == [[0, 1, 1.5, 2], [-2, -1.5, -1, 0]]


def test_a_method_that_overrides_the_hook(layer):
    class Shouting(prune.L1Unstructured):
        def __call__(self, module, inputs):
            setattr(module, self._tensor_name, self.apply_mask(module) * 10)

    Shouting.apply(layer, "weight", amount=7)
    layer.bias.data.zero_()
    assert layer(torch.ones(4)).tolist() == [0, -40]


def test_a_hook_registered_by_hand(layer):
    method = prune.Identity()
    method._tensor_name = "weight"
    original = layer.weight
    del layer.weight
    layer.register_parameter("weight_orig", original)
    layer.register_buffer("weight_mask", torch.zeros(2, 4))
    layer.register_forward_pre_hook(method)
    assert torch.equal(layer(torch.ones(4)), layer.bias)


def test_a_mask_that_was_computed_with_a_graph(layer):
    class Soft(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            return default_mask * torch.sigmoid(t)

    Soft.apply(layer, "weight")
    assert not layer.weight_mask.requires_grad


def test_removal_leaves_no_trace(layer):
    before, parameter = dict(vars(layer)), layer.weight
    for name in ("weight", "bias"):
        prune.l1_unstructured(layer, name, 0.5)
    assert isinstance(layer, nn.Linear)
    assert type(layer).__name__ == "Linear"
    assert prune.is_pruned(nn.Sequential(layer))
    for name in ("weight", "bias"):
        prune.remove(layer, name)
    assert type(layer) is nn.Linear
    assert layer.weight is parameter
    assert vars(layer).keys() == before.keys()
    assert not prune.is_pruned(layer)


def test_a_method_that_was_never_applied(layer):
    with pytest.raises(AssertionError, match=r"Identity\.apply"):
        prune.Identity().remove(layer)


def test_modules_pruned_alike_share_a_class_that_goes_with_them():
    a, b = (prune.identity(nn.Bilinear(1, 1, 1), "weight") for _ in range(2))
    assert type(a) is type(b)
    kind = weakref.ref(type(a))
    del a, b
    gc.collect()
    assert kind() is None
    assert not any(base is nn.Bilinear for base, _ in derived._classes)


@pytest.mark.parametrize("times", [0, 1, 2])
@pytest.mark.parametrize(
    "fail",
    [
        lambda m: prune.l1_unstructured(m, "weight", 99),
        lambda m: prune.custom_from_mask(m, "weight", torch.ones(3)),
        lambda m: prune.l1_unstructured(m, "weight", 1, importance_scores=m.weight * float("nan")),
        lambda m: prune.l1_unstructured(m, "weight", 1, importance_scores=torch.ones(1)),
        lambda m: prune.global_unstructured(
            [(m, "bias"), (m, "weight"), (m, "wieght")], prune.L1Unstructured, amount=1
        ),
        lambda m: prune.global_unstructured(
            [(m, "bias"), (m, "weight")], prune.L1Unstructured, amount=99
        ),
    ],
)
def test_a_failure_changes_nothing(layer, times, fail):
    for _ in range(times):
        prune.l1_unstructured(layer, "weight", 1)
    before = list(layer.state_dict()), type(layer), dict(layer._forward_pre_hooks)
    lengths = [len(h) for h in before[2].values() if isinstance(h, prune.PruningContainer)]
    weight = layer.weight.clone()
    with pytest.raises((ValueError, AssertionError, AttributeError)):
        fail(layer)
    assert (list(layer.state_dict()), type(layer), dict(layer._forward_pre_hooks)) == before
    assert [len(h) for h in before[2].values() if isinstance(h, prune.PruningContainer)] == lengths
    assert torch.equal(layer.weight, weight)


def test_a_name_that_is_taken_changes_nothing(layer):
    layer.weight_mask = "mine"
    with pytest.raises(KeyError):
        prune.identity(layer, "weight")
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert type(layer) is nn.Linear


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: prune.identity(m, "weigth"), "no parameter 'weigth'.*mean 'weight'"),
        (lambda m: prune.remove(m, "weight"), "'weight' of Linear is not pruned; only nothing is"),
        (lambda m: prune.l1_unstructured(m, "weight", 1.5), r"amount=1.5 .* outside \[0, 1\]"),
        (lambda m: prune.l1_unstructured(m, "weight", 9), "amount=9 is more than the 8 units"),
        (lambda m: prune.l1_unstructured(m, "weight", float("nan")), "amount=nan"),
        (lambda m: prune.ln_structured(m, "weight", 1, 2, dim=5), "dim=5 .* from -2 to 1"),
        (
            lambda m: prune.ln_structured(m, "weight", 1, "nuc", 0),
            "'nuc' cannot .*as n=2",
        ),
    ],
)
def test_messages_name_value_rule_and_way_out(layer, call, message):
    with pytest.raises(PruneError, match=message):
        call(layer)
