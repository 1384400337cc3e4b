"""`prune_core.prune`: a model is masked in one line."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import prune_core
from prune_core import BasicPruner, ConfigError, hookimpl
from prune_core.masking import PrunerModuleWrapper
from prune_core.registry import Reference, registered
from prune_toolkit import NormalSparsityAllocator, NormMetricsCalculator, WeightDataCollector

CONFIG = [{"op_types": ["default"], "sparsity": 0.5}]


class L1(BasicPruner):
    default_types = supported_types = ("Conv2d", "ConvTranspose2d", "Linear")

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    ).eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_pruner_sees_that_its_model_was_unwrapped_without_it(model, x):
    pruner = L1(model, CONFIG)
    pruner.compress()
    dense = model[0].module.weight.clone()
    prune_core.unwrap(model)
    assert not pruner.is_wrapped
    pruner.close_masks(x)
    assert isinstance(model[0], nn.Conv2d), "what looks at the plain model leaves it plain"
    pruner._unwrap_model()
    pruner._wrap_model()
    assert isinstance(model[0], PrunerModuleWrapper)
    assert torch.equal(model[0].module.weight, dense), "dense weights come back"


class Plugin:
    @hookimpl
    def prune_register_pruners(self):
        return {"toy_l1": Reference("toy_pruners:L1")}


def test_one_line(model, monkeypatch):
    module = ModuleType("toy_pruners")
    module.L1 = L1
    monkeypatch.setitem(sys.modules, "toy_pruners", module)
    with registered(Plugin(), "toys"):
        wrapped, masks = prune_core.prune(model, "toy_l1", sparsity=0.5, exclude="4")
        assert wrapped is model
        assert list(masks) == ["0"]
        prune_core.unwrap(model)
        _, masks = prune_core.prune(model, "toy_l1", sparsity=0.5, targets=["Linear"])
        assert list(masks) == ["4"]
        prune_core.unwrap(model)
        with pytest.raises(ConfigError, match="'Conv2'.*Did you mean 'Conv2d'"):
            prune_core.prune(model, "toy_l1", sparsity=0.5, targets="Conv2")
        with pytest.raises(ConfigError, match="exclude has '44'.*Did you mean '4'"):
            prune_core.prune(model, "toy_l1", sparsity=0.5, exclude="44")
        for targets in ([3], 3, []):
            with pytest.raises(ConfigError, match="targets is .*; it must be a name or class"):
                prune_core.prune(model, "toy_l1", sparsity=0.5, targets=targets)
        assert isinstance(model[0], nn.Conv2d)
