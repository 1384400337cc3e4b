"""Collectors beside plain sums, and how they share a run with somebody else's code."""

import pytest
import torch
from torch import nn

from prune_core import BasicPruner, ConfigError, PruneError
from prune_toolkit import (
    ActivationCollector,
    ActivationGradientCollector,
    GradientCollector,
    NormalSparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)
from prune_toolkit.collect import channels_first


class Pruner(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self)


def pruner_of(*layers):
    torch.manual_seed(0)
    return Pruner(nn.Sequential(*layers), [{"sparsity": 0.5, "op_types": ["default"]}])


def test_activations_are_averaged_over_values_not_over_batches():
    pruner = pruner_of(nn.Linear(1, 2))
    batches = [torch.ones(3, 1), -torch.ones(1, 1)]
    outputs = torch.cat([pruner.bound_model(batch) for batch in batches])
    collector = ActivationCollector(pruner, lambda model: [model(batch) for batch in batches])
    torch.testing.assert_close(collector.collect()["0"], outputs.relu().double().mean(0))


def test_counts_go_beyond_what_float32_can_count():
    pruner = pruner_of(nn.Linear(1, 1))
    nn.init.ones_(pruner.bound_model[0].module.weight)
    nn.init.zeros_(pruner.bound_model[0].module.bias)
    collector = ActivationCollector(pruner, lambda model: None, statistic=lambda x: x > 0)
    collector.watch()
    pruner.bound_model(torch.ones(1, 1))
    collector._sums["0"] += torch.tensor([[2.0**24], [2.0**24]], dtype=torch.float64)
    pruner.bound_model(torch.ones(1, 1))
    collector.stop()
    assert collector._sums["0"].tolist() == [[2**24 + 2], [2**24 + 2]]


@pytest.mark.parametrize("batches", [1, 2, None])
def test_it_leaves_when_enough_batches_have_passed(batches):
    calls = []

    def calibrate(model):
        for number in range(3):
            model(torch.ones(1, 2))
            calls.append(number)

    pruner = pruner_of(nn.Linear(2, 2))
    collector = ActivationCollector(pruner, calibrate, batches)
    collector.collect()
    assert len(calls) == collector.seen == (batches or 3)
    assert not pruner.bound_model._forward_pre_hooks


def test_a_training_that_somebody_else_runs_can_be_watched():
    pruner = pruner_of(nn.Linear(2, 2))
    collector = GradientCollector(pruner, lambda model: None)
    collector.watch()
    for _ in range(2):
        pruner.bound_model(torch.ones(1, 2)).sum().backward()
    collector.stop()
    pruner.bound_model(torch.ones(1, 2)).sum().backward()
    weight = pruner.bound_model[0].module.weight
    torch.testing.assert_close(collector.gathered()["0"], 2 * weight.detach())


def test_a_hook_that_cannot_be_attached_leaves_none_behind():
    pruner = pruner_of(nn.Linear(2, 2), nn.Linear(2, 2))
    pruner.bound_model[1].module.weight.requires_grad_(False)
    with pytest.raises(PruneError, match=r"1\.weight is frozen"):
        GradientCollector(pruner, lambda model: None).watch()
    assert not pruner.bound_model._forward_pre_hooks
    assert not pruner.bound_model[0].module.weight._backward_hooks


def test_gradients_that_are_added_up_are_not_touched():
    pruner = pruner_of(nn.Linear(2, 2))
    model = pruner.bound_model

    def calibrate(model):
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()

    collector = GradientCollector(pruner, calibrate, statistic=lambda weight, gradient: gradient)
    assert collector.collect()["0"].tolist() == [[3.0, 3.0]] * 2
    assert model[0].module.weight.grad.tolist() == [[3.0, 3.0]] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_products_are_made_in_a_type_that_is_wide_enough(dtype):
    pruner = pruner_of(nn.Linear(2, 2).to(dtype))
    collector = GradientCollector(
        pruner, lambda model: model(torch.ones(1, 2, dtype=dtype)).sum().backward()
    )
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert collector.collect()["0"].dtype == expected


def test_weights_are_views():
    pruner = pruner_of(nn.Linear(2, 2))
    weight = pruner.bound_model[0].module.weight
    for channels in (False, True):
        data = WeightDataCollector(pruner, channels=channels).collect()["0"]
        assert data.data_ptr() == weight.data_ptr()


def test_channels_of_a_grouped_transposed_convolution_are_no_slices():
    pruner = pruner_of(nn.ConvTranspose1d(4, 4, 1, groups=2))
    [wrapper] = pruner.get_modules_wrapper().values()
    with pytest.raises(ConfigError, match="2 groups"):
        channels_first(wrapper, wrapper.weight)


def test_activations_meet_their_gradients():
    # y = 2x and the loss is the sum of y², so the gradient is 2y and their product 2y².
    pruner = pruner_of(nn.Linear(1, 1, bias=False))
    nn.init.constant_(pruner.bound_model[0].module.weight, 2.0)

    def calibrate(model):
        for batch in ([1.0], [2.0, 3.0]):
            model(torch.tensor(batch).unsqueeze(1)).square().sum().backward()

    collector = ActivationGradientCollector(pruner, calibrate)
    assert collector.collect()["0"].tolist() == [pytest.approx((8 + 32 + 72) / 3)]


def test_the_channels_of_a_convolution_meet_their_gradients():
    pruner = pruner_of(nn.Conv2d(2, 3, 3))
    inputs, seen = torch.randn(4, 2, 5, 5), []

    def calibrate(model):
        outputs = model(inputs)
        outputs.retain_grad()
        (outputs**3).mean().backward()
        seen.append((outputs.detach() * outputs.grad.detach()).mean((0, 2, 3)).double())

    collected = ActivationGradientCollector(pruner, calibrate).collect()["0"]
    torch.testing.assert_close(collected, seen[0], check_dtype=False)


def test_activations_without_a_backward_pass_have_no_gradient():
    pruner = pruner_of(nn.Linear(1, 1))
    collector = ActivationGradientCollector(pruner, lambda model: model(torch.ones(1, 1)))
    with pytest.raises(PruneError, match=r"does calibrate\(model\) call backward"):
        collector.collect()
