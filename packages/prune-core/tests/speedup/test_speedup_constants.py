"""Masks that leave constants behind: nothing changes unless the user says so."""

import pytest
import torch
from torch import nn

from prune_core import ConfigError, SpeedupError, shrink
from prune_core.masking import PrunerModuleWrapper, replace_modules


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).eval()
    norm = model[1]
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


@pytest.fixture
def x():
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def open_masks():
    keep = torch.arange(8) >= 4
    return {"0": {"weight": keep.reshape(8, 1, 1, 1).expand(8, 3, 3, 3), "bias": keep}}


def masked_output(model, x, norm_too=False):
    keep = torch.arange(8) >= 4
    hidden = model[0](x) * keep.reshape(8, 1, 1)
    hidden = model[1](hidden)
    if norm_too:
        hidden = hidden * keep.reshape(8, 1, 1)
    return model[3](hidden.relu())


def test_constants_are_kept_by_default(model, x):
    expected = masked_output(model, x)
    report = shrink(model, x, open_masks())
    assert model[0].out_channels == 8
    torch.testing.assert_close(model(x), expected)
    assert "4 indices: what they are tied to is not zero" in report.kept["0.weight[0]"]
    assert "constants='zero'" in str(report)
    assert torch.equal(report.masks["0"]["weight"], open_masks()["0"]["weight"])


def test_constants_are_zeroed_when_asked_and_the_report_says_what_that_did(model, x):
    before, after = masked_output(model, x), masked_output(model, x, norm_too=True)
    report = shrink(model, x, open_masks(), constants="zero")
    assert model[0].out_channels == 4
    torch.testing.assert_close(model(x), after, rtol=1e-4, atol=1e-5)
    moved = ((after - before).abs().max() / before.abs().max()).item()
    assert report.moved == pytest.approx(moved, rel=1e-3)
    assert moved > 0.01
    assert report.difference.relative < 1e-6
    assert "moved the output" in report.table()


def test_a_choice_that_is_none(model, x):
    with pytest.raises(ConfigError, match="constants is 'zeros'.*Did you mean 'zero'"):
        shrink(model, x, open_masks(), constants="zeros")


def test_a_wrapped_model_is_refused(model, x):
    replace_modules(model, {model[0]: PrunerModuleWrapper(model[0], "0", {})})
    with pytest.raises(SpeedupError, match="'0' is still wrapped by a pruner"):
        shrink(model, x)


def test_inputs_that_the_model_does_not_accept(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"these shapes, \[\(1, 4, 9, 9\)\]: RuntimeError"):
        shrink(model, torch.randn(1, 4, 9, 9), open_masks())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
