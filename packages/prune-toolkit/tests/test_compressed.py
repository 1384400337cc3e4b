"""What `compress()` returns is a pair, and can be used as the model."""

import copy
import pickle

import pytest
import torch
from torch import nn

import prune_core
from prune_core import Compressed, unwrap
from prune_core.testing import ConvNet, make_batch, make_toy
from prune_toolkit import NormalSparsityAllocator, NormMetricsCalculator, WeightDataCollector


class Channels(prune_core.BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self, channels=True)
        self.metrics_calculator = NormMetricsCalculator(dim=0)
        self.sparsity_allocator = NormalSparsityAllocator(self, channels=True)


RULES = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]


@pytest.fixture
def pruner():
    return Channels(make_toy(ConvNet), RULES)


def test_it_unpacks_to_model_and_masks(pruner):
    model, masks = returned = pruner.compress()
    assert isinstance(returned, Compressed)
    assert model is pruner.bound_model
    assert masks.keys() == pruner.masks.keys()
    assert (returned[0], returned[1], len(returned)) == (model, masks, 2)


def test_it_is_trained_saved_and_printed_as_the_model(pruner):
    model = pruner.compress()
    images, labels = make_batch(size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    before = model(images)
    nn.functional.cross_entropy(before, labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    assert not torch.equal(model(images), before)
    model.eval()
    assert not pruner.bound_model.training
    assert model.state_dict().keys() == pruner.bound_model.state_dict().keys()
    assert str(model) == str(pruner.bound_model)
    assert "PrunerModuleWrapper" in str(model)


def test_what_is_set_on_it_is_set_on_the_model(pruner):
    model = pruner.compress()
    name, layer = list(pruner.bound_model.named_children())[-1]
    other = nn.Identity()
    setattr(model, name, other)
    assert getattr(pruner.bound_model, name) is other is not layer
    delattr(model, name)
    assert not hasattr(pruner.bound_model, name)
    assert not hasattr(model, name)


def test_copies_are_whole(pruner):
    images, _ = make_batch(size=2)
    returned = pruner.compress()
    for other in (copy.deepcopy(returned), pickle.loads(pickle.dumps(returned))):
        model, masks = other
        assert model is not returned[0]
        assert torch.equal(other(images), returned(images))
        assert masks.keys() == returned[1].keys()


def test_unwrapping_takes_it(pruner):
    model = pruner.compress()
    assert unwrap(model) is pruner.bound_model
    assert not pruner.is_wrapped


def test_what_writes_a_model_takes_it(pruner):
    model, _ = returned = pruner.compress()
    assert prune_core.masked_state_dict(returned).keys() == make_toy(ConvNet).state_dict().keys()
    assert pruner.bound_model is model


def test_another_pruner_takes_it(pruner):
    model = pruner.compress()
    pruner.unwrap()
    assert Channels(model, RULES).bound_model is pruner.bound_model
