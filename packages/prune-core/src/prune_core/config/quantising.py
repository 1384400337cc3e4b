"""The keys of a `config_list` that says how to quantise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune_core.config.keys import AMOUNT_KEYS, OPTIONAL_KEYS, Key, Purpose, is_whole
from prune_core.errors import ConfigError, shown

__all__ = ["QUANTISING", "QUANT_TYPES", "bits_of"]

QUANT_TYPES = ("weight", "input", "output")
DEFAULT_BITS = 8


def _types(value: Any) -> str | None:
    expected = f"a list of {', '.join(map(repr, QUANT_TYPES))}"
    if isinstance(value, str):
        return f"{expected}: write [{value!r}]"
    if isinstance(value, list | tuple) and value and all(each in QUANT_TYPES for each in value):
        return None if len(set(value)) == len(value) else f"{expected}, each at most once"
    return expected


def _bits(value: Any) -> str | None:
    expected = "a whole number from 1 to 31, or such a number for each of the quant_types"
    if isinstance(value, Mapping):
        known = value and all(name in QUANT_TYPES for name in value)
        return None if known and all(map(_is_bits, value.values())) else expected
    return None if _is_bits(value) else expected


def _is_bits(value: Any) -> bool:
    return is_whole(value) and 1 <= int(value) < 32


def bits_of(settings: Mapping[str, Any], default: int = DEFAULT_BITS) -> dict[str, int]:
    """Return `{quant_type: bits}` of a checked entry, `default` where it does not say.

    >>> bits_of({"quant_types": ["weight", "output"], "quant_bits": {"weight": 8, "output": 4}})
    {'weight': 8, 'output': 4}
    """
    bits = settings.get("quant_bits", default)
    return {
        kind: int(bits[kind] if isinstance(bits, Mapping) else bits)
        for kind in settings["quant_types"]
    }


def _check(where: str, settings: Mapping[str, Any], keys: Mapping[str, Key]) -> None:
    """Every type has its bits, and nothing else has."""
    bits, types = settings.get("quant_bits", DEFAULT_BITS), settings["quant_types"]
    if not isinstance(bits, Mapping):
        return
    for lacking in (kind for kind in types if kind not in bits):
        raise ConfigError(
            f"{where}: 'quant_types' has {lacking!r}, and 'quant_bits' says nothing of it; give "
            f"it a number of bits, such as {{{lacking!r}: 8}}."
        )
    for idle in (kind for kind in bits if kind not in types):
        raise ConfigError(
            f"{where}: 'quant_bits' has {idle!r}: {shown(bits[idle])}, and 'quant_types' does not "
            f"have {idle!r}; add it there, or leave it out here."
        )


_PRUNES = (
    "It says how much to prune, which a quantizer does not do: prune first, with a config_list of "
    "its own, and give the quantizer the pruned model."
)
_FIXED = (
    "Weights are quantised symmetrically for each output channel, inputs and outputs over their "
    "range: leave it out."
)

QUANTISING = Purpose(
    verb="quantise",
    done="quantised",
    asks="what to quantise",
    example="{'quant_types': ['weight'], 'quant_bits': 8, 'op_types': ['default']}",
    keys={
        "quant_types": Key(
            "quant_types", _types, "What is quantised: 'weight', 'input', 'output'.", is_amount=True
        ),
        "quant_bits": Key(
            "quant_bits", _bits, "Bits of all quant_types, or of each, {'weight': 8}; 8 if unsaid."
        ),
    },
    elsewhere={
        **dict.fromkeys((*AMOUNT_KEYS, *OPTIONAL_KEYS), _PRUNES),
        **dict.fromkeys(("sparse_ratio", "max_sparse_ratio"), _PRUNES),
        **dict.fromkeys(("quant_dtype", "quant_scheme", "quant_granularity"), _FIXED),
        "quant_start_step": "Only quantizers that train know it: QAT_Quantizer and LsqQuantizer.",
    },
    check=_check,
)
