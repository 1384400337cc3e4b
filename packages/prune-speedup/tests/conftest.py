"""Pruners for tests of the engine, which is installed without the plugins that have some."""

import sys
from types import ModuleType

import pytest

from prune_core import BasicPruner, Reference, hookimpl
from prune_core.registry import registered
from prune_toolkit import (
    DependencyAwareAllocator,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    WeightDataCollector,
)


class ToyL1(BasicPruner):
    granularity = "channels"
    default_types = supported_types = ("Conv2d", "Linear")
    modes = ("normal", "dependency_aware")

    def __init__(self, model, config_list, mode="normal", dummy_input=None):
        self.mode, self.dummy_input = mode, dummy_input
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1)
        self.sparsity_allocator = (
            NormalSparsityAllocator(self, channels=True)
            if self.mode == "normal"
            else DependencyAwareAllocator(self, self.dummy_input)
        )


class ToyMute(ToyL1):
    granularity = ""


class ToyLevel(ToyL1):
    granularity = "weights"
    modes = ("normal",)


class Plugin:
    @hookimpl
    def prune_register_pruners(self):
        return {
            "toy_l1": Reference("toy_pruners:ToyL1"),
            "toy_level": Reference("toy_pruners:ToyLevel"),
            "toy_mute": Reference("toy_pruners:ToyMute"),
        }


@pytest.fixture
def toys(monkeypatch):
    """Pruners by name, where no plugin is installed that has some."""
    module = ModuleType("toy_pruners")
    module.ToyL1, module.ToyLevel, module.ToyMute = ToyL1, ToyLevel, ToyMute
    monkeypatch.setitem(sys.modules, "toy_pruners", module)
    with registered(Plugin(), "toys"):
        yield
