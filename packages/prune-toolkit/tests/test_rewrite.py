"""Values that were written over come back, unless training has made something of them."""

import copy
import io

import pytest
import torch
from torch import nn

import prune_core
from prune_core import BasicPruner, PruneError
from prune_core.masking import PrunerModuleWrapper
from prune_core.masking.rewrite import Rewrites, mark
from prune_toolkit import (
    NormalSparsityAllocator,
    StraightMetricsCalculator,
    WeightDataCollector,
)


class Smallest(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = StraightMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self, transform=torch.abs)


def pruned():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3))
    dense = copy.deepcopy(model.state_dict())
    pruner = Smallest(model, [{"sparsity": 0.5, "op_types": ["Linear"]}])
    pruner.compress()
    return model, dense, pruner


def rewritten():
    """A pruned model with another weight, a bias it did not have, and another running mean."""
    model, dense, pruner = pruned()
    [wrapper] = pruner.get_modules_wrapper().values()
    rewrites = Rewrites()
    rewrites.put(wrapper.module, "weight", torch.full((3, 4), 2.0))
    rewrites.put(wrapper.module, "bias", torch.ones(3))
    rewrites.put(model[1], "running_mean", torch.full((3,), 5.0))
    wrapper.rewrites.absorb(rewrites)
    return model, dense, pruner


def same(model, state):
    now = model.state_dict()
    return now.keys() == state.keys() and all(torch.equal(now[n], v) for n, v in state.items())


def test_unwrapping_without_applying_gives_the_dense_model_back():
    model, dense, _ = rewritten()
    assert model[0].module.bias is not None
    prune_core.unwrap(model, apply=False)
    assert model[0].bias is None
    assert same(model, dense)


def test_unwrapping_leaves_what_was_written():
    model, _, pruner = rewritten()
    mask = pruner.masks["0"]["weight"]
    prune_core.unwrap(model)
    assert torch.equal(model[0].weight, 2.0 * mask)
    assert torch.equal(model[0].bias, torch.ones(3))
    assert torch.equal(model[1].running_mean, torch.full((3,), 5.0))


def test_without_anything_written_the_masks_alone_go():
    model, dense, _ = pruned()
    prune_core.unwrap(model, apply=False)
    assert same(model, dense)


def test_a_copy_goes_back_by_itself():
    model, dense, _ = rewritten()
    duplicate = copy.deepcopy(model)
    prune_core.unwrap(duplicate, apply=False)
    assert same(duplicate, dense)
    assert model[1].running_mean.tolist() == [5, 5, 5]
    assert isinstance(model[0], PrunerModuleWrapper)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    prune_core.unwrap(loaded, apply=False)
    assert same(loaded, dense)


def test_what_was_trained_since_stays():
    model, dense, _ = rewritten()
    with torch.no_grad():
        model[0].module.weight.add_(1.0)
    prune_core.unwrap(model, apply=False)
    assert torch.equal(model[0].weight, torch.full((3, 4), 3.0))
    assert torch.equal(model[1].running_mean, dense["1.running_mean"])


def test_of_two_changes_the_first_is_what_one_goes_back_behind():
    layer, kept = nn.Linear(2, 2), Rewrites()
    before = layer.weight.detach().clone()
    for value in (1.0, 2.0):
        rewrites = Rewrites()
        rewrites.put(layer, "weight", torch.full((2, 2), value))
        kept.absorb(rewrites)
        assert len(rewrites) == 0
    kept.undo()
    assert torch.equal(layer.weight, before)


def test_training_between_two_changes_is_not_undone():
    layer, kept = nn.Linear(2, 2), Rewrites()
    for value in (1.0, 2.0):
        rewrites = Rewrites()
        rewrites.put(layer, "weight", torch.full((2, 2), value))
        kept.absorb(rewrites)
        trained = layer.weight.detach() + 10
        if value == 1.0:
            with torch.no_grad():
                layer.weight.copy_(trained)
    kept.undo()
    assert torch.equal(layer.weight, torch.full((2, 2), 11.0))


def test_the_parameter_stays_the_same_object_and_gets_its_type():
    layer = nn.Linear(2, 2, bias=False).bfloat16().requires_grad_(False)
    weight, rewrites = layer.weight, Rewrites()
    rewrites.put(layer, "weight", torch.full((2, 2), 1 / 3, dtype=torch.float64))
    rewrites.put(layer, "bias", torch.ones(2))
    assert layer.weight is weight
    assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16
    assert not layer.bias.requires_grad


def test_marks_tell_values_apart_and_know_every_type():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64):
        tensor = torch.arange(6).to(dtype)
        before = mark(tensor)
        assert mark(tensor.view(2, 3).t()) == before
        tensor[0] += 1
        assert mark(tensor) != before
    assert mark(None) == 0
    assert mark(torch.ones(2, dtype=torch.complex64)) != 0


def test_parameters_in_parts_are_refused():
    class Part(torch.Tensor):
        def full_tensor(self):
            return self

    layer = nn.Linear(2, 2)
    layer.part = torch.ones(2).as_subclass(Part)
    with pytest.raises(PruneError, match=r"cut over several processes.*Prune before fully_shard"):
        Rewrites().put(layer, "part", torch.ones(2))
