"""Walks over a model find what torch's own find, in the same order and by the same names."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from prune_core.traversal import modules_in, named_modules, named_parameters, named_tensors


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU()))


def shared() -> nn.Module:
    """A layer in two places, a weight in two layers, and a place that is empty."""
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = layer.weight
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer, other)})
    model.register_module("nothing", None)
    model.register_buffer("table", torch.zeros(2))
    model["b"].register_buffer("table", model.table)
    return model


class Hides(nn.Linear):
    """Says itself what is in it."""

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield "hidden", self

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield "shown", self.weight


def hiding() -> nn.Module:
    return nn.Sequential(nn.ReLU(), Hides(3, 3))


def compiled() -> nn.Module:
    return nn.Sequential(nn.ReLU(), torch.jit.script(plain()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("build", [plain, shared, hiding, lambda: Hides(2, 2), compiled])
@pytest.mark.parametrize("every_name", [False, True])
def test_walks_find_what_torch_finds(build: Any, every_name: bool) -> None:
    model, once = build(), not every_name
    assert named_modules(model, every_name=every_name) == [
        *model.named_modules(remove_duplicate=once)
    ]
    assert modules_in(model) == [*model.modules()]
    parameters = [*model.named_parameters(remove_duplicate=once)]
    buffers = [*model.named_buffers(remove_duplicate=once)]
    found = named_parameters(model, every_name=every_name)
    assert same(found, parameters)
    assert same(named_tensors(model, every_name=every_name), [*parameters, *buffers])


def same(found: dict[str, Any], expected: list[tuple[str, Any]]) -> bool:
    return [*found] == [name for name, _ in expected] and all(
        found[name] is tensor or torch.equal(found[name], tensor) for name, tensor in expected
    )
