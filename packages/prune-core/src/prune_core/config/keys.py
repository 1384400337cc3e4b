"""The keys an entry of a `config_list` can have, and what each value must be.

An algorithm lists the optional keys it understands in its `config_keys`, by name for the ones in
`OPTIONAL_KEYS`, or as a `Key` of its own. A key that no one declared is refused. Which keys there
are besides depends on the purpose of the config: to prune (below), or to quantise
(`prune_core.config.quantising`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from prune_core.errors import ConfigError, shown

__all__ = [
    "AMOUNT_KEYS",
    "COMMON_KEYS",
    "OPTIONAL_KEYS",
    "PRUNING",
    "SELECTING_KEYS",
    "Key",
    "Purpose",
    "is_whole",
    "keys_for",
]

Rule = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an entry.

    Attributes:
        name: The key.
        rule: Returns what the value must be when it is not, else None.
        meaning: One line for documentation and `prune show`.
        is_amount: Whether the key says how much to prune; an entry has exactly one such key.
    """

    name: str
    rule: Rule
    meaning: str = ""
    is_amount: bool = False


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


# Limits are compared with the value itself: an integer can be too large to become a float.
def _ratio(value: Any) -> str | None:
    if _number(value) and 0 <= value < 1:
        return None
    return "a number of at least 0 and less than 1 (0.5 prunes half)"


def _cap(value: Any) -> str | None:
    if _number(value) and 0 < value <= 1:
        return None
    return "a number greater than 0 and at most 1"


def _positive(value: Any) -> str | None:
    if _number(value) and 0 < value <= sys.float_info.max:
        return None
    return "a number greater than 0"


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; `True` is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _whole(least: int) -> Rule:
    def rule(value: Any) -> str | None:
        if is_whole(value) and int(value) >= least:
            return None
        return f"a whole number of at least {least}"

    return rule


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def _names(value: Any) -> str | None:
    if isinstance(value, str):
        return f"a list of strings: write [{value!r}]"
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(name, str) and name for name in value)
    ):
        return None
    if isinstance(value, list | tuple) and any(isinstance(name, type) for name in value):
        names = [name.__name__ if isinstance(name, type) else name for name in value]
        return f"a list of strings: write {names!r}"
    return "a list of one or more non-empty strings"


def _table(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}


SELECTING_KEYS: Mapping[str, Key] = _table(
    Key("op_types", _names, "Class names of modules; 'default' means the algorithm's own choice."),
    Key("op_names", _names, "Exact names of modules."),
    Key("op_partial_names", _names, "Parts of names: every module whose name contains one."),
    Key("exclude", _flag, "True takes the selected modules out again."),
)

AMOUNT_KEYS: Mapping[str, Key] = _table(
    Key("sparsity", _ratio, "The ratio that each selected module loses.", is_amount=True),
    Key("sparsity_per_layer", _ratio, "The same as sparsity.", is_amount=True),
    Key(
        "total_sparsity",
        _ratio,
        "The ratio that all modules of the entry lose together.",
        is_amount=True,
    ),
    Key("max_sparsity_per_layer", _cap, "No module of the entry loses more than this ratio."),
)

COMMON_KEYS: Mapping[str, Key] = {**SELECTING_KEYS, **AMOUNT_KEYS}

OPTIONAL_KEYS: Mapping[str, Key] = _table(
    Key("initial_sparsity", _ratio, "Sparsity at the start of a schedule."),
    Key("final_sparsity", _ratio, "Sparsity at the end of a schedule.", is_amount=True),
    Key("start_epoch", _whole(0), "The first epoch that prunes."),
    Key("end_epoch", _whole(0), "The final sparsity is reached before this epoch."),
    Key("start_step", _whole(0), "The first optimizer step that prunes."),
    Key("end_step", _whole(0), "The final sparsity is reached before this optimizer step."),
    Key("frequency", _whole(1), "Epochs or steps between two prunings."),
    Key("prune_iterations", _whole(1), "Rounds of pruning."),
    Key("rho", _positive, "Weight of the penalty term of ADMM."),
    Key("quant_start_step", _whole(0), "The first optimizer step that computes quantised."),
)


_QUANTISES = (
    "It says how to quantise, which a pruner does not do: give it to a quantizer, such as "
    "prune_quant.QAT_Quantizer, in a config_list of its own, after pruning."
)
_BY_OPTION = "What it says is an argument of the pruner here, such as mode='global'."
_EXCLUDES = "Exclude in an entry of its own, after this one: {'exclude': True, 'op_names': [...]}."

_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("quant_types", "quant_bits", "quant_dtype", "quant_scheme"), _QUANTISES),
    **dict.fromkeys(("quant_start_step", "quant_granularity"), _QUANTISES),
    **dict.fromkeys(("exclude_op_names", "exclude_op_names_re", "exclude_op_types"), _EXCLUDES),
    **dict.fromkeys(("global_group_id", "dependency_group_id", "granularity"), _BY_OPTION),
    "op_names_re": "Name modules by a part of their names, 'op_partial_names'.",
    "sparse_ratio": "It is called 'sparsity' here.",
    "max_sparse_ratio": "It is called 'max_sparsity_per_layer' here.",
}
"""Keys that the predecessor knew, and what to write instead, for messages."""


def _check_amount(where: str, settings: Mapping[str, Any], keys: Mapping[str, Key]) -> None:
    """Check the keys of one pruning entry against each other."""
    cap = settings.get("max_sparsity_per_layer", 1.0)
    for name, value in settings.items():
        if keys[name].is_amount and value > cap:
            raise ConfigError(
                f"{where}: {name!r} is {value} and 'max_sparsity_per_layer' is {cap}; no module "
                "may lose more than the latter, so the former cannot be reached."
            )
    for first, last in (("start_epoch", "end_epoch"), ("start_step", "end_step")):
        if first in settings and last in settings and settings[first] > settings[last]:
            raise ConfigError(
                f"{where}: {first!r} is {shown(settings[first])}, after {last!r}, which is "
                f"{shown(settings[last])}."
            )


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a `config_list` is for: its keys, and the words of its messages.

    Attributes:
        verb: What is done to modules, such as `"prune"`.
        done: What they are then, such as `"pruned"`.
        asks: What an entry has to say, such as `"how much to prune"`.
        example: An entry for messages.
        keys: The keys of every entry, beside those that select modules.
        elsewhere: Keys that belong elsewhere, and what to write instead.
        check: Raises where the keys of an entry do not go together.
    """

    verb: str
    done: str
    asks: str
    example: str
    keys: Mapping[str, Key]
    elsewhere: Mapping[str, str]
    check: Callable[[str, Mapping[str, Any], Mapping[str, Key]], None]


PRUNING = Purpose(
    verb="prune",
    done="pruned",
    asks="how much to prune",
    example="{'sparsity': 0.5, 'op_types': ['default']}",
    keys=AMOUNT_KEYS,
    elsewhere=_ELSEWHERE,
    check=_check_amount,
)


def keys_for(extra: Iterable[str | Key], purpose: Purpose = PRUNING) -> dict[str, Key]:
    """Return the keys for a purpose and the ones that an algorithm declares."""
    keys = {**SELECTING_KEYS, **purpose.keys}
    for key in extra:
        if isinstance(key, Key):
            keys[key.name] = key
        elif key in OPTIONAL_KEYS:
            keys[key] = OPTIONAL_KEYS[key]
        else:
            raise ConfigError(
                f"config_keys names {key!r}, which prune-core does not know: declare it as "
                f"Key({key!r}, rule). Known: {', '.join(OPTIONAL_KEYS)}."
            )
    return keys
