"""The numbers of single layers, for a config that can say them: `config.per_layer_config`.

Each layer is looked at by itself, as if all layers were like it. A model of three layers whose
second has lost half of its hidden channels:

    layer 0: 48 → 48     layer 1: 48 → 24     layer 2: 48 → 48

The most changed layer says which names count, here `intermediate_size`. Then each layer is asked
which values of these names give it its shapes; a name that has one value in all layers is a number
of the whole config after all.
"""

import copy
from collections.abc import Iterator, Mapping
from itertools import islice, product
from math import prod
from typing import Any

from torch import nn

from prune_speedup.torch.model_config.build import Build, Shapes, as_read, builder, shapes_of
from prune_speedup.torch.model_config.layer_configs import holders_of, rows_of
from prune_speedup.torch.model_config.numbers import (
    PER_LAYER,
    Keys,
    Values,
    integers,
    overrides_of,
    put_values,
)
from prune_speedup.torch.model_config.search import Search, candidates_of

__all__ = ["values_by_layer"]

_GUESSES, _COMBINATIONS = 4, 60


def values_by_layer(
    model: nn.Module, before: Shapes, after: Shapes, *, base: Values, builds: int
) -> Iterator[dict[Keys, int]]:
    """Yield numbers, some of them of single layers, that give a model the shapes that it has.

    Args:
        model: A small model.
        before: The shapes that its tensors had.
        after: The shapes that they have.
        base: Numbers that are to be put down beside.
        builds: How many models may be built to find the names that count.
    """
    build = builder(model)
    for keys, holder in holders_of(model.config):
        rows = rows_of(model, holder.num_hidden_layers)
        layers = [
            _Layer(model.config, keys, build, base, tuple(rows), at, before, after)
            for at in range(holder.num_hidden_layers)
        ]
        if not any(layer.changes for layer in layers):
            continue
        first = max(layers, key=lambda layer: layer.changes)
        for names in islice(first.names(builds), _GUESSES):
            found = [layer.values(names) for layer in layers]
            if all(values is not None for values in found):
                yield {**base, **_together(keys, [values or {} for values in found])}


class _Layer:
    """One layer of a model, and what the model is without the others.

    Attributes:
        changes: How many of its axes have become smaller.
    """

    def __init__(
        self,
        config: Any,
        keys: Keys,
        build: Build,
        base: Values,
        rows: tuple[str, ...],
        at: int,
        before: Shapes,
        after: Shapes,
    ) -> None:
        self._build = build
        self._others = tuple(f"{row}." for row in rows), tuple(f"{row}.{at}." for row in rows)
        own = [name for name in before if name.startswith(self._others[1])]
        self.changes = sum(before[name] != after[name] for name in own)
        self._before, self._after = self._seen(before), self._seen(after)
        # All layers as this one is. What a layer says is put down after a config was read: a number
        # of heads that does not divide the width is refused there, and is fine in a layer.
        changed = copy.deepcopy(config)
        put_values(changed, base)
        holder = self._config = as_read(changed)
        for key in keys:
            holder = getattr(holder, str(key))
        said = overrides_of(holder).get(at, {})
        setattr(holder, PER_LAYER, None)
        for name, value in said.items():
            setattr(holder, name, value)
        self._old = dict(integers(self._config))

    def _seen(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """Leave out the tensors of other layers."""
        row, own = self._others
        return {n: s for n, s in shapes.items() if n.startswith(own) or not n.startswith(row)}

    def _shapes(self, values: Values) -> dict[str, tuple[int, ...]]:
        changed = copy.deepcopy(self._config)
        put_values(changed, values)
        return self._seen(shapes_of(self._build(changed)))

    def names(self, builds: int) -> Iterator[tuple[Keys, ...]]:
        """Yield sets of names that have values with which this layer gets its shapes."""
        seen: set[tuple[Keys, ...]] = set()
        search = Search(self._old, self._shapes, self._before, self._after, base={}, builds=builds)
        for values in search.fitting():
            names = tuple(sorted((k for k in values if values[k] != self._old[k]), key=str))
            if names not in seen:
                seen.add(names)
                yield names

    def values(self, names: tuple[Keys, ...]) -> dict[Keys, int] | None:
        """Return the values of these names that give the layer its shapes, if any do."""
        candidates = candidates_of(self._old, self._before, self._after)
        choices = []
        for keys in names:
            old = self._old.get(keys)
            if old is None:
                return None
            choices.append([old, *(c for c in candidates.get(keys, ()) if c != old)])
        if prod(map(len, choices)) > _COMBINATIONS:
            return None
        for chosen in product(*choices):
            values = dict(zip(names, chosen, strict=True))
            try:
                fits = self._shapes(values) == self._after
            except Exception:
                continue  # sizes that do not go together are refused in many ways
            if fits:
                return values
        return None


def _together(holder: Keys, found: list[Mapping[Keys, int]]) -> dict[Keys, int]:
    """Write what the layers say as numbers of one config."""
    values: dict[Keys, int] = {}
    for keys in found[0]:
        of_layers = [layer[keys] for layer in found]
        *outer, name = keys
        if len(set(of_layers)) == 1:
            values[keys] = of_layers[0]
        elif tuple(outer) == holder:
            for at, value in enumerate(of_layers):
                values[(*holder, PER_LAYER, at, name)] = value
        else:
            return {}  # a number outside the holder is one for all layers
    return values
