"""How many experts there are, wherever a model has written that down.

A model of a library is built from a config. Which number of it counts the experts is seen by
building the model with another one, and so is which attributes follow. Of other models, integers
that are as many as the experts are tried, those first that are called after experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import torch
from torch import nn

from prune_speedup.torch.heads import Place
from prune_speedup.torch.mixtures.mixture import Mixture
from prune_speedup.torch.model_config.build import built_like, run_as, same_outputs, shapes_of
from prune_speedup.torch.model_config.layer_configs import holders_of, rows_of
from prune_speedup.torch.model_config.numbers import (
    PER_LAYER,
    Keys,
    Values,
    integers,
    is_config,
)
from prune_speedup.torch.record.isolation import untouched
from prune_speedup.torch.resize.layers import sizes_written
from prune_speedup.torch.saving import ConfigChange, inputs_of, refuse_saving
from prune_speedup.torch.surgery import plain_attributes
from prune_toolkit.running.restore import evaluating

__all__ = [
    "Attribute",
    "Carrier",
    "Counted",
    "attributes_by_config",
    "by_config",
    "by_name",
    "carrier_of",
    "describe",
    "fitting",
    "put_counts",
    "values_by_layer",
]

Attribute = tuple[str, str]
"""A module, and an attribute of it."""

_MOST_KEYS, _MOST_NAMES = 5, 4


class Counted(Protocol):
    """What a model has a number of: experts of a mixture, or tokens of a vocabulary."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def places(self) -> tuple[Place, ...]:
        """The tensors with something for each."""

    @property
    def lists(self) -> tuple[str, ...]:
        """Modules that hold a module for each."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """The module that carries the config which the mixtures were built from.

    Attributes:
        path: Its name in the model; the model itself has an empty one.
        module: It.
    """

    path: str
    module: nn.Module

    @property
    def config(self) -> Any:
        """The config."""
        return self.module.config

    def own(self, name: str) -> str:
        """What the carrier calls something of the model."""
        return name.removeprefix(f"{self.path}.") if self.path else name

    def outside(self, name: str) -> str:
        """What the model calls something of the carrier."""
        return ".".join(filter(None, (self.path, name)))


def carrier_of(model: nn.Module, left: Mapping[str, Any]) -> Carrier | None:
    """The outermost module that carries a config and has all of some mixtures."""
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        inside = all(not path or name == path or name.startswith(f"{path}.") for name in left)
        if inside and is_config(config) and hasattr(type(config), "from_dict"):
            return Carrier(path, module)
    return None


def by_config(carrier: Carrier, left: Mapping[str, tuple[Counted, list[int]]]) -> dict[str, Values]:
    """Which numbers of a config make each of some things fewer, as far as that is known."""
    found: dict[str, Values] = {}
    known: dict[tuple[int, int], Values] = {}
    for name, (counted, stay) in left.items():
        sizes = counted.count, len(stay)
        if sizes not in known:
            known[sizes] = next(fitting(carrier, counted, len(stay)), {})
        if known[sizes]:
            found[name] = known[sizes]
    return found


def fitting(carrier: Carrier, counted: Counted, left: int) -> Iterator[dict[Keys, int]]:
    """Yield numbers of a config with which fewer of some things are built, the fewest first."""
    keys = [keys for keys, value in integers(carrier.config) if value == counted.count]
    for count in range(1, min(len(keys), _MOST_KEYS) + 1):
        for chosen in combinations(keys, count):
            values = dict.fromkeys(chosen, left)
            try:
                built = shapes_of(built_like(carrier.module, values))
            except Exception:  # sizes that do not go together are refused in many ways
                continue
            shapes = {carrier.outside(name): shape for name, shape in built.items()}
            if _has(shapes, counted, left):
                yield values


def _has(shapes: Mapping[str, tuple[int, ...]], counted: Counted, left: int) -> bool:
    """Whether a model of these shapes has so many of some things."""
    places = [(name, axis) for name, axis in counted.places if name in shapes]
    if any(shapes[name][axis] != left for name, axis in places):
        return False
    held = [
        {
            name.removeprefix(f"{each}.").split(".")[0]
            for name in shapes
            if name.startswith(f"{each}.")
        }
        for each in counted.lists
    ]
    return bool(places) and all(len(names) == left for names in held)


def values_by_layer(carrier: Carrier, known: Mapping[str, Values]) -> dict[Keys, int]:
    """Numbers of experts said of single layers, where a config has a place for that.

    Args:
        carrier: What carries the config.
        known: Which numbers of it make each mixture what it is, by the name of the mixture, as if
            all were like it.

    Returns:
        Numbers at places such as `("per_layer_config", 3, "num_local_experts")`; none if a mixture
        lies outside the layers that the config can speak of.
    """
    for keys, holder in holders_of(carrier.config):
        rows = rows_of(carrier.module, holder.num_hidden_layers)
        found: dict[Keys, int] = {}
        for name, values in known.items():
            own = carrier.own(name)
            row = next((row for row in rows if own.startswith(f"{row}.")), None)
            if row is None or any(at[:-1] != keys for at in values):
                break
            layer = int(own.removeprefix(f"{row}.").split(".")[0])
            found |= {(*keys, PER_LAYER, layer, at[-1]): value for at, value in values.items()}
        else:
            return found
    return {}


def attributes_by_config(carrier: Carrier, values: Values) -> dict[Attribute, int]:
    """The attributes that are others in a model built with other numbers, and what they are."""
    before, after = (plain_attributes(built_like(carrier.module, each)) for each in ({}, values))
    return {
        (carrier.outside(module), name): new
        for module, attributes in before.items()
        for name, old in attributes.items()
        if isinstance(new := after.get(module, {}).get(name), int) and new != old
    }


def by_name(
    model: nn.Module, left: Mapping[str, tuple[Mixture, list[int]]]
) -> Iterator[dict[Attribute, int]]:
    """Attributes that may count experts, and what they would be; the likeliest choices first."""
    found: dict[tuple[type, str], dict[Attribute, int]] = {}
    for mixture, stay in left.values():
        sizes = {mixture.experts: len(stay)}
        if mixture.groups is not None:
            count = mixture.groups.count
            sizes.setdefault(mixture.experts // count, len(stay) // count)
        for module, name, old in _integers_in(model, mixture):
            if old in sizes:
                key = type(model.get_submodule(module)), name
                found.setdefault(key, {})[module, name] = sizes[old]
    named = [key for key in found if "expert" in key[1].lower()]
    tried: list[list[tuple[type, str]]] = [named, list(found)]
    few = list(found)[:_MOST_NAMES]
    for count in range(len(few), -1, -1):
        tried += [list(chosen) for chosen in combinations(few, count)]
    seen: list[set[tuple[type, str]]] = []
    for keys in tried:
        if set(keys) not in seen:
            seen.append(set(keys))
            yield {attribute: value for key in keys for attribute, value in found[key].items()}


def _integers_in(model: nn.Module, mixture: Mixture) -> Iterator[tuple[str, str, int]]:
    scope = model.get_submodule(mixture.name)
    for path, module in scope.named_modules(prefix=mixture.name):
        within = any(path.startswith(f"{each}.") for each in mixture.lists)
        if within or sizes_written(type(module)) is not None:
            continue
        for name, value in vars(module).items():
            if type(value) is int:
                yield path, name, value


def describe(
    model: nn.Module,
    example_inputs: Any,
    carrier: Carrier | None,
    values: Values,
    before: Values,
    *,
    why: str,
) -> ConfigChange | None:
    """Say what became of the config of a model, and refuse to save what it does not describe.

    Args:
        model: The small model.
        example_inputs: What it runs on.
        carrier: What carries the config, which has been changed already.
        values: What was changed in it.
        before: The numbers of the config as it was.
        why: Why no numbers of the config make this model, or nothing.
    """
    if carrier is None:
        return None
    change = ConfigChange()
    change.missing = why or _differs(model, carrier, example_inputs)
    if values and not change.missing:
        change.settings[carrier.path] = [([*keys], value) for keys, value in values.items()]
        change.values = {
            carrier.outside(".".join(map(str, keys))): (before.get(keys), value)
            for keys, value in values.items()
        }
    if change.missing:
        change.refused = {
            path: change.missing
            for path, module in model.named_modules()
            if callable(getattr(type(module), "save_pretrained", None))
        }
    refuse_saving(model, change.refused)
    return change


def _differs(model: nn.Module, carrier: Carrier, example_inputs: Any) -> str:
    """How what is built from the config differs from what carries it."""
    built = built_like(carrier.module, {})
    own, other = shapes_of(carrier.module), shapes_of(built)
    if own != other:
        name = min(n for n in own.keys() | other if own.get(n) != other.get(n))
        return f"{name!r} would be {other.get(name)}, and is {own.get(name)}"
    # Rounded to half precision, frequencies of positions are others than those built anew; where
    # tokens are sent to other experts for that, the difference is no small one.
    modules = dict(carrier.module.named_modules())
    for path, module in built.named_modules():
        if path in modules:
            module._buffers.update(modules[path]._buffers)
    inputs = inputs_of(model, example_inputs, {carrier.path: carrier.module})
    if carrier.path not in inputs:
        return "the example does not run it"
    args, kwargs = inputs[carrier.path]
    with untouched(carrier.module), evaluating(carrier.module), torch.no_grad():
        expected = carrier.module(*args, **kwargs)
        found = run_as(built, args, kwargs, of=carrier.module)
    return "" if same_outputs(expected, found) else "a model built from it computes something else"


def put_counts(model: nn.Module, attributes: Mapping[Attribute, int]) -> None:
    """Write down how many experts there are."""
    modules = dict(model.named_modules())
    for (module, name), value in attributes.items():
        if module in modules and type(vars(modules[module]).get(name)) is int:
            modules[module].__dict__[name] = value
