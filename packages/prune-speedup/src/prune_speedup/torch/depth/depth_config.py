"""The config of a model that has fewer layers now.

Nothing here knows the names in a config. Numbers that may count layers are tried, until a model
built from the config has the tensors that the smaller one has:

    num_hidden_layers   12 → 9      a count of all layers
    first_k_dense        3 → 2      a count of those up to some layer
    layer_types         [12] → [9]  a list with an entry for each layer
    per_layer_config    {3: …} → {2: …}  what single layers have of their own
    mlp_only_layers     [0, 5] → [0, 3]   a list of positions
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any

from torch import nn

from prune_speedup.torch.model_config.build import built_like, shapes_of
from prune_speedup.torch.model_config.layer_configs import holders_of
from prune_speedup.torch.model_config.numbers import (
    PER_LAYER,
    Keys,
    integers,
    is_config,
    overrides_of,
)

__all__ = ["carriers", "configs_in", "fitting"]

_BUILDS = 120
_TOGETHER = 3

Setting = tuple[Keys, Any]


def carriers(model: nn.Module, row: str) -> dict[str, nn.Module]:
    """Return the modules that carry a config and hold a list of layers, the outermost first."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        holds = not name or row == name or row.startswith(f"{name}.")
        if holds and is_config(config) and hasattr(type(config), "from_dict"):
            found[name] = module
    return found


def configs_in(config: Any) -> Iterator[Any]:
    """Yield a config and the configs in it."""
    yield config
    for value in vars(config).values():
        if is_config(value):
            yield from configs_in(value)


def _lists_of(config: Any, path: Keys = ()) -> Iterator[Setting]:
    """Yield the lists of a config whose entries are plain values, and of the configs in it."""
    for key, value in vars(config).items():
        if is_config(value):
            yield from _lists_of(value, (*path, key))
        elif type(value) is list and value and all(map(_is_plain, value)):
            yield (*path, key), value


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)


def fitting(carrier: nn.Module, before: int, kept: Sequence[int]) -> Iterator[list[Setting]]:
    """Yield the changes of a config that make a model with the tensors of this one.

    Args:
        carrier: A module that carries a config, and has lost layers already.
        before: How many layers the list had.
        kept: Those that stay.
    """
    wanted = shapes_of(carrier)
    gone = [at for at in range(before) if at not in kept]
    lists = [*_lists_of(carrier.config)]
    each_layer: list[Setting] = [
        (keys, [value[at] for at in kept]) for keys, value in lists if len(value) == before
    ]
    overrides: list[Setting] = [
        ((*keys, PER_LAYER), {new: said[at] for new, at in enumerate(kept) if at in said})
        for keys, holder in holders_of(carrier.config)
        if holder.num_hidden_layers == before and (said := overrides_of(holder))
    ]
    places: list[Setting] = [
        (keys, [at - sum(other < at for other in gone) for at in value if at in kept])
        for keys, value in lists
        if all(type(at) is int and 0 <= at < before for at in value) and len(value) < before
    ]
    numbers = [
        (keys, value, value - sum(at < value for at in gone))
        for keys, value in integers(carrier.config)
        if 0 < value <= before and keys[:-1] not in dict(places) and PER_LAYER not in keys
    ]
    numbers.sort(key=lambda each: each[1] != before)
    single: list[Setting] = [
        *((keys, new) for keys, value, new in numbers if new != value),
        *((keys, new) for keys, new in places if new != dict(lists)[keys]),
    ]
    tries = chain.from_iterable(
        combinations(single, size) for size in range(min(_TOGETHER, len(single)) + 1)
    )
    builds = 0
    for chosen in tries:
        for base in (each_layer, []) if each_layer else ([],):
            keys = [k for k, _ in chosen]
            inner = any(k[: len(key)] == key for k in keys for key, _ in base)
            settings = [*base, *chosen, *overrides]
            if not settings or inner:
                continue
            if (builds := builds + 1) > _BUILDS:
                return
            try:
                if shapes_of(built_like(carrier, dict(settings))) == wanted:
                    yield settings
            except Exception:
                continue  # what makes no model is refused in as many ways as there are libraries
