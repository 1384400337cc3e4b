"""What torch calls the layers of Keras, for whoever comes from there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prune_core.errors import ConfigError

__all__ = ["check_types", "keras_name"]

_NAMES = {
    "Linear": "Dense",
    "NonDynamicallyQuantizableLinear": "Dense",
    "LayerNorm": "LayerNormalization",
    "GroupNorm": "GroupNormalization",
    "RMSNorm": "RMSNormalization",
    "MultiheadAttention": "MultiHeadAttention",
    **{f"Conv{n}d": f"Conv{n}D" for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": f"Conv{n}DTranspose" for n in (1, 2, 3)},
    **{f"BatchNorm{n}d": "BatchNormalization" for n in (1, 2, 3)},
}


def keras_name(name: str, present: Collection[str]) -> str:
    """Return what to write instead of torch's name of a layer, as a sentence; else nothing.

    >>> keras_name("Linear", {"Dense"})
    " 'Linear' is torch's name; Keras calls it 'Dense'."
    """
    ours = _NAMES.get(name)
    if ours is None or name in present:
        return ""
    return f" {name!r} is torch's name; Keras calls it {ours!r}."


def check_types(config_list: Sequence[Any], present: Collection[str]) -> None:
    """Refuse rules that select layers by the names of torch.

    Raises:
        ConfigError: Saying what Keras calls them.
    """
    for number, rule in enumerate(config_list):
        for key in ("op_types", "exclude_op_types"):
            names = rule.get(key) if isinstance(rule, Mapping) else None
            for name in [names] if isinstance(names, str) else names or ():
                told = keras_name(name, present) if isinstance(name, str) else ""
                if told:
                    raise ConfigError(f"config_list[{number}]: {key!r} names {name!r}.{told}")
