"""Small pruners, registered for the length of a test as if a plugin had brought them."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prune_core import BasicPruner, Reference, hookimpl
from prune_core.registry import registered
from prune_toolkit import (
    DependencyAwareAllocator,
    GradientCollector,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    StraightMetricsCalculator,
    WeightDataCollector,
)

sys.path.insert(0, str(Path(__file__).parent))  # tests find what they share beside them


class Weights(BasicPruner):
    """The smallest single weights."""

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)


class Channels(BasicPruner):
    """The smallest output channels."""

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1.0)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


class Units(BasicPruner):
    """The smallest output channels, the same ones in layers that belong together."""

    modes = ("dependency_aware",)

    def __init__(self, model, config_list, mode="dependency_aware", dummy_input=None):
        self.dummy_input = dummy_input
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1.0)
        self.sparsity_allocator = DependencyAwareAllocator(self, self.dummy_input)


class Gradients(BasicPruner):
    """The single weights with the smallest gradients."""

    def __init__(self, model, config_list, calibrate):
        self.calibrate = calibrate
        super().__init__(model, config_list)

    def reset_tools(self):
        self.data_collector = GradientCollector(self, self.calibrate)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)


class Toys:
    """What a plugin's hooks module is: references to the classes above."""

    @hookimpl
    def prune_register_pruners(self):
        names = {
            "smallest": "Weights",
            "channels": "Channels",
            "units": "Units",
            "gradients": "Gradients",
        }
        return {name: Reference(f"schedule_toys:{target}") for name, target in names.items()}


class Tape(nn.Module):
    """One linear layer with 250 weights, the i-th of which is i + 1."""

    def __init__(self, inputs=25, outputs=10):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.arange(1.0, inputs * outputs + 1).view(outputs, inputs))

    def forward(self, x):
        return self.fc(x)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    module = SimpleNamespace(Weights=Weights, Channels=Channels, Units=Units, Gradients=Gradients)
    monkeypatch.setitem(sys.modules, "schedule_toys", module)
    with registered(Toys(), "toys"):
        yield module


@pytest.fixture
def ctrl_c():
    """Press Ctrl-C, which a process that was started in the background ignores from its start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def tape():
    return Tape()


@pytest.fixture
def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


@pytest.fixture
def make_tape():
    return Tape
