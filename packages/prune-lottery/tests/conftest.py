"""A criterion, a network and a way to train it, all small."""

import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prune_core import BasicPruner, Reference, hookimpl
from prune_core.registry import registered
from prune_toolkit import (
    GlobalSparsityAllocator,
    NormalSparsityAllocator,
    NormMetricsCalculator,
    WeightDataCollector,
)


class Level(BasicPruner):
    """The smallest absolute values; prune-filter's own is not there in these tests."""

    def __init__(self, model, config_list, mode="normal"):
        self.mode = mode
        super().__init__(model, config_list)

    def reset_tools(self):
        allocator = GlobalSparsityAllocator if self.mode == "global" else NormalSparsityAllocator
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = NormMetricsCalculator()
        self.sparsity_allocator = allocator(self)


class Rows(BasicPruner):
    """Whole output channels with the smallest L1 norms."""

    supported_types = default_types = ("Linear",)

    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0, p=1)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


class Plugin:
    @hookimpl
    def prune_register_pruners(self):
        return {
            "tiny_level": Reference("tiny_criteria:Level"),
            "tiny_rows": Reference("tiny_criteria:Rows"),
        }


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    module = ModuleType("tiny_criteria")
    module.Level, module.Rows = Level, Rows
    monkeypatch.setitem(sys.modules, "tiny_criteria", module)
    with registered(Plugin(), "tiny"):
        yield


@pytest.fixture
def level():
    return Level


@pytest.fixture
def rows():
    return Rows


class Net(nn.Module):
    """With what is easily forgotten: batch norm, a buffer outside the state dict, dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.2)
        self.second = nn.Linear(8, 3)
        self.register_buffer("seen", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.training:
            self.seen += len(x)
        return self.second(self.drop(torch.relu(self.norm(self.first(x)))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


CONFIG = [{"op_types": ["Linear"], "sparsity": 0.75}]


@pytest.fixture
def config():
    return [dict(entry) for entry in CONFIG]


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(64, 6, generator=generator), torch.randint(0, 3, (64,), generator=generator)


@pytest.fixture
def trainer(data):
    """A function that makes a train function for an optimizer and whatever steps with it."""
    images, labels = data

    def make(optimizer=None, scheduler=None, ema=None, total=6, seen=None):
        def train(model, this_round):
            own = optimizer or torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
            model.train()
            for step in this_round.steps(total) if this_round else range(total):
                if seen is not None:
                    seen.append((this_round.index if this_round else None, step))
                chosen = torch.randint(0, 64, (16,))
                own.zero_grad()
                F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
                own.step()
                if scheduler is not None:
                    scheduler.step()
                if ema is not None:
                    ema.update_parameters(model)

        return train

    return make


@pytest.fixture
def accuracy(data):
    images, labels = data

    @torch.no_grad()
    def evaluate(model):
        model.eval()
        return (model(images).argmax(1) == labels).float().mean()

    return evaluate
