"""`check_quantizer` passes what keeps its promises, and says what is broken."""

import pytest
import torch
from torch import nn

from prune_core.compressed import model_of
from prune_core.config import QUANTISING, Algorithm, bits_of, match, parse
from prune_core.masking import modules_of, unwrap, wrappers_in
from prune_core.testing import check_quantizer


class RoundsOnce:
    """The least that a quantizer can be: weights are rounded where they are, and come back."""

    lowest = 0.0

    def __init__(self, model, config_list):
        entries = parse(config_list, purpose=QUANTISING)
        self.model = model_of(model)
        self.masked = bool(wrappers_in(model))
        if self.masked:
            self.model = unwrap(model)
        algorithm = Algorithm("RoundsOnce", ("Conv2d", "Linear"), purpose=QUANTISING)
        self.found = match(entries, modules_of(self.model), algorithm)

    def get_modules_wrapper(self):
        return self.found

    def compress(self):
        self.dense = {}
        with torch.no_grad():
            for name, settings in self.found.items():
                weight = self.model.get_submodule(name).weight
                self.dense[name] = weight.clone()
                high = 2 ** (bits_of(settings)["weight"] - 1) - 1
                step = weight.abs().max() / high
                weight.copy_((weight / step).round() * step + self.lowest)
        return self.model

    def unwrap(self):
        with torch.no_grad():
            for name, weight in self.dense.items():
                self.model.get_submodule(name).weight.copy_(weight)
        self.dense = {}

    def export_model(self, path):
        torch.save(self.model.state_dict(), path)


# It does not stay in force while the model is trained, so those who promise that are left out.
ONCE = ("masks",)


def test_a_quantizer_that_keeps_its_promises_passes():
    check_quantizer(RoundsOnce, skip=ONCE)


def test_zeros_that_do_not_stay_are_told():
    class Shifts(RoundsOnce):
        lowest = 0.01

    with pytest.raises(AssertionError, match="zeros: zeros of 'conv1.weight' are something else"):
        check_quantizer(Shifts, skip=ONCE)


def test_masks_that_do_not_stay_are_told():
    with pytest.raises(AssertionError, match="masks: masked weights of 'conv1.weight'"):
        check_quantizer(RoundsOnce)


def test_a_quantizer_that_does_nothing_is_told():
    class Idle(RoundsOnce):
        def compress(self):
            self.dense = {}
            return nn.Identity()

    with pytest.raises(AssertionError, match=r"compress\(\) returned a Identity, not the model"):
        check_quantizer(Idle, skip=ONCE)


def test_an_unknown_check_is_refused():
    with pytest.raises(ValueError, match="no check 'zeroes'"):
        check_quantizer(RoundsOnce, skip=["zeroes"])
