"""`check_pruner` passes a sound pruner, and catches each way of being unsound."""

import threading

import pytest
import torch
from torch import nn

from prune_core import BasicPruner, ConfigError
from prune_core.masking import replace_modules
from prune_core.testing import MLP, LeNet, ResidualNet, check_pruner
from prune_toolkit import NormalSparsityAllocator, NormMetricsCalculator, WeightDataCollector
from prune_toolkit.testing import CHECKS


class Channels(BasicPruner):
    """Prunes the channels of the smallest norm: sound."""

    granularity = "channels"

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


class Weights(BasicPruner):
    """Prunes the smallest weights: sound."""

    granularity = "weights"

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = NormMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self)


@pytest.mark.parametrize("model", [MLP, LeNet, ResidualNet])
def test_sound_pruners_pass_on_every_toy(model):
    check_pruner(Channels, model=model, granularity="channels")
    check_pruner(Weights, model=model, granularity="weights")


def test_sound_pruners_pass_when_nothing_is_said():
    check_pruner(Channels)
    check_pruner(Weights)


def test_other_modules_can_be_chosen():
    check_pruner(Weights, config={"op_types": ["BatchNorm2d"]})


class TooMany(Channels):
    def compress(self):
        for wrapper in self.get_modules_wrapper().values():
            wrapper.config["sparsity"] = min(0.9, wrapper.config["sparsity"] + 0.2)
        return super().compress()


class HalfAMask(Channels):
    def compress(self):
        model, masks = super().compress()
        return model, {n: {t: m * 0.5 for t, m in ts.items()} for n, ts in masks.items()}


class WrongShape(Channels):
    def compress(self):
        model, masks = super().compress()
        return model, {n: {t: m[:1] for t, m in ts.items()} for n, ts in masks.items()}


class NotInForce(Channels):
    def compress(self):
        model, masks = super().compress()
        for wrapper in self.get_modules_wrapper().values():
            wrapper.set_masks({t: torch.ones_like(m) for t, m in wrapper.masks.items()})
        return model, masks


class ForgetsToZero(Channels):
    def unwrap(self):
        replace_modules(self.bound_model, {w: w.module for w in self._wrappers.values()})


class UnwrapsOnce(Channels):
    def unwrap(self):
        if not self.is_wrapped:
            raise RuntimeError("it is unwrapped already")
        return super().unwrap()


class WrapsTwice(Channels):
    def wrap(self):
        if self.is_wrapped:
            self.bound_model.add_module("again", nn.Identity())
        return super().wrap()


class NewParameters(Channels):
    def compress(self):
        for wrapper in self.get_modules_wrapper().values():
            wrapper.module.weight = nn.Parameter(wrapper.module.weight.detach().clone())
        return super().compress()


class Freezes(Channels):
    def compress(self):
        for parameter in self.bound_model.parameters():
            parameter.requires_grad_(False)
        return super().compress()


class MasksOnlyOnce(Channels):
    """Writes zeros instead of masking: training brings the weights back."""

    def compress(self):
        model, masks = super().compress()
        for wrapper in self.get_modules_wrapper().values():
            wrapper.apply_masks()
            wrapper._buffers["weight_mask"] = None
            wrapper._buffers["bias_mask"] = None
        return model, masks


class KeepsMasksOutOfTheStateDict(Channels):
    def compress(self):
        result = super().compress()
        for wrapper in self.get_modules_wrapper().values():
            wrapper._non_persistent_buffers_set.update({"weight_mask", "bias_mask"})
        return result


class CannotBeCopied(Channels):
    def compress(self):
        self.bound_model.lock = threading.Lock()
        return super().compress()


class SharesWithItsCopy(Channels):
    def compress(self):
        for wrapper in self.get_modules_wrapper().values():
            wrapper.module.__class__ = type(
                "Shared", (type(wrapper.module),), {"__deepcopy__": lambda self, memo: self}
            )
        return super().compress()


class Rolls(Channels):
    """Takes its randomness from the operating system, whatever the seed."""

    def reset_tools(self):
        super().reset_tools()
        generator = torch.Generator()
        generator.seed()
        self.data_collector.collect = lambda: {
            name: torch.rand(w.module.weight.shape, generator=generator)
            for name, w in self.get_modules_wrapper().items()
        }


class Excludes(Channels):
    """Ignores what is excluded."""

    def reset(self, model, config_list):
        super().reset(model, [e for e in config_list if not e.get("exclude")] or config_list)


class Forgives(Channels):
    """Accepts any config."""

    def reset(self, model, config_list):
        try:
            super().reset(model, config_list)
        except ConfigError:
            self.bound_model = model


class WrongError(Channels):
    def reset(self, model, config_list):
        try:
            super().reset(model, config_list)
        except ConfigError as error:
            raise RuntimeError("something went wrong") from error


class TouchesFirst(Channels):
    def reset(self, model, config_list):
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
        super().reset(model, config_list)


class SaysNothing(BasicPruner):
    reset_tools = Channels.reset_tools


class ScoresWeights(Channels):
    def reset_tools(self):
        Weights.reset_tools(self)


class TakesAnyMode(Channels):
    modes = ("normal", "dependency_aware")

    def __init__(self, model, config_list, mode="normal", dummy_input=None):
        super().__init__(model, config_list)


class NeedsNothing(Channels):
    needs_data = True

    def __init__(self, model, config_list, calibrate=None):
        super().__init__(model, config_list)


UNSOUND = {
    SaysNothing: ("capabilities", r"granularity is ''; declare on the class"),
    TooMany: ("sparsity", r"with sparsity 0\.3, 'conv1' keeps 4 of 7 channels; .* is 5\."),
    HalfAMask: ("masks", r"the mask of conv1\.weight holds \[0\.5\]"),
    WrongShape: ("masks", r"has the shape \(1, 3, 3, 3\); the tensor has \(7, 3, 3, 3\)"),
    NotInForce: ("masks", r"that compress\(\) returned is not the one in force"),
    ForgetsToZero: ("unwrap", r"output of the unwrapped model differs from the one under masks"),
    UnwrapsOnce: ("idempotence", r"raised RuntimeError: it is unwrapped already \(line \d+ of"),
    WrapsTwice: ("idempotence", r"wrapping twice leaves other modules than wrapping once"),
    NewParameters: ("parameters", r"after compress\(\), conv1\.weight, .* is another object"),
    Freezes: ("training", r"does not require grad"),
    MasksOnlyOnce: ("training", r"training brings masked values of .*weight back"),
    KeepsMasksOutOfTheStateDict: ("state_dict", r"does not bring back the mask|Missing key"),
    CannotBeCopied: ("deepcopy", r"raised TypeError: cannot pickle"),
    SharesWithItsCopy: ("deepcopy", r"the original differs from .* before its copy was changed"),
    Rolls: ("determinism", r"two runs with the same seed make different masks"),
    Excludes: ("exclude", r"'conv1' is excluded, and has a mask"),
    Forgives: ("bad_config", r"an empty list is accepted"),
    WrongError: ("bad_config", r"an empty list raises RuntimeError, not ConfigError"),
    TouchesFirst: ("bad_config", r"after an empty list was refused, conv1\.weight has other"),
}


@pytest.mark.parametrize("pruner", UNSOUND, ids=lambda pruner: pruner.__name__)
def test_an_unsound_pruner_fails_the_check_that_is_meant_for_it(pruner):
    check, message = UNSOUND[pruner]
    with pytest.raises(
        AssertionError, match=rf"(?s){pruner.__name__} fails .*{check}: .*{message}"
    ):
        check_pruner(pruner)


@pytest.mark.parametrize(
    ("pruner", "arguments", "says"),
    [
        (ScoresWeights, {}, r"scores of 'conv1' have the shape \(7, 3, 3, 3\) instead of \(7,\)"),
        (TakesAnyMode, {}, "mode='no_such_mode' is accepted"),
        (NeedsNothing, {}, "declares needs_data, and there was no calibrate="),
        (NeedsNothing, {"calibrate": print}, "declares needs_data, and does without calibrate="),
    ],
)
def test_what_is_declared_is_held_against_what_is_so(pruner, arguments, says):
    with pytest.raises(AssertionError, match=rf"(?s)capabilities: .*{says}"):
        check_pruner(pruner, skip=set(CHECKS) - {"capabilities"}, **arguments)


def test_every_check_is_shown_to_fail():
    assert {check for check, _ in UNSOUND.values()} == set(CHECKS)


def test_a_check_that_does_not_apply_is_skipped():
    check_pruner(TooMany, skip={"sparsity"})


def test_single_weights_are_no_channels():
    with pytest.raises(AssertionError, match="the mask of 'conv1' prunes parts of channels"):
        check_pruner(Weights, granularity="channels")


def test_a_check_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError, match=r"no check 'speed'; the checks are capabilities, sparsity"
    ):
        check_pruner(Channels, skip={"speed"})


def test_a_granularity_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="granularity is 'filters'"):
        check_pruner(Channels, granularity="filters")
