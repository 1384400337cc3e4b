"""The numbers of a config, and how others are put in their places."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["PER_LAYER", "Keys", "Values", "integers", "is_config", "overrides_of", "put_values"]

PER_LAYER = "per_layer_config"
"""Where a config of transformers says in what a layer differs from the others:
`{3: {"intermediate_size": 40}}` for the fourth."""

_ALLOW = "allow_global_per_layer_attribute_access"

Keys = tuple[str | int, ...]
"""Where a number stands: names of attributes, and places in lists. A number of one layer stands at
`("per_layer_config", 3, "intermediate_size")`."""
Values = Mapping[Keys, Any]


def is_config(value: Any) -> bool:
    """Whether this is what a library keeps the sizes of a model in."""
    return callable(getattr(value, "to_dict", None)) and hasattr(value, "__dict__")


def integers(config: Any, path: Keys = ()) -> Iterator[tuple[Keys, int]]:
    """Yield the integers of a config, of its lists, and of the configs in it."""
    items = enumerate(config) if isinstance(config, list) else vars(config).items()
    for key, value in items:
        if type(value) is int:
            yield (*path, key), value
        elif isinstance(value, list) or is_config(value):
            yield from integers(value, (*path, key))
    if is_config(config):
        for layer, overrides in overrides_of(config).items():
            for name, value in overrides.items():
                if type(value) is int:
                    yield (*path, PER_LAYER, layer, name), value


def overrides_of(config: Any) -> dict[int, dict[str, Any]]:
    """In what layers differ from what a config says of all: `{layer: {name: value}}`."""
    if not getattr(config, "is_heterogeneous", False):
        return {}
    said = config.to_dict().get(PER_LAYER, {})
    return {int(layer): dict(overrides) for layer, overrides in said.items()}


def put_values(config: Any, values: Values) -> None:
    """Write numbers to their places in a config."""
    layers: dict[Keys, dict[int, dict[str, Any]]] = {}
    for keys, value in values.items():
        if PER_LAYER in keys:
            at = keys.index(PER_LAYER)
            layers.setdefault(keys[:at], {})
            if keys[at + 1 :]:
                layer, name = keys[at + 1 :]
                layers[keys[:at]].setdefault(int(layer), {})[str(name)] = value
            else:
                layers[keys[:at]] = {int(layer): dict(said) for layer, said in value.items()}
            continue
        *outer, last = keys
        holder = _held(config, tuple(outer))
        if isinstance(last, int):
            holder[last] = value
        else:
            setattr(holder, last, value)
    # Last, because they are checked against the number of layers, and against what all have.
    for keys, overrides in layers.items():
        holder = _held(config, keys)
        known = {} if (*keys, PER_LAYER) in values else overrides_of(holder)
        for layer, said in overrides.items():
            known.setdefault(layer, {}).update(said)
        setattr(holder, PER_LAYER, known)
        # Without it a config cannot even be read: it checks its heads against its width.
        setattr(holder, _ALLOW, True)


def _held(config: Any, keys: Keys) -> Any:
    holder: Any = config
    for key in keys:
        holder = holder[key] if isinstance(key, int) else getattr(holder, key)
    return holder
