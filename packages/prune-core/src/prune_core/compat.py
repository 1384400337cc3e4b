"""Calls that older releases took, understood at the door of a constructor.

A constructor has the arguments of today. What scripts for the predecessor write is a table, in the
`compat.py` of each package, and `understands` reads it before the constructor runs:

    OLDER = Older(
        orders=[order("optimizer", "activation", "statistics_batch_num")],
        renamed={"statistics_batch_num": "batches"},
        flags={"dependency_aware": ("mode", "dependency_aware")},
        ignored={"optimizer": NoEffect()},
    )

    class APoZPruner:
        @understands(OLDER)
        def __init__(self, model, config_list, mode="normal", *, batches=None): ...

So `APoZPruner(model, rules, optimizer, "relu", 4)` and `APoZPruner(model, rules,
dependency_aware=True)` work, the constructor never hears of an older name, and editors and type
checkers show the call of today.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from numbers import Integral, Real
from typing import Any, ParamSpec

from prune_core.errors import ConfigError, OptionError, shown, warn
from prune_core.evaluators import holds_training, looks_like_optimizer
from prune_core.options import check_options

__all__ = ["NoEffect", "Older", "order", "understands"]

P = ParamSpec("P")

ANY: Any = object()


@dataclass(frozen=True, slots=True)
class NoEffect:
    """An argument that has nothing left to say.

    Attributes:
        default: What older releases took it to be: another value is dropped with a warning. With
            `ANY`, no value is worth one.
        instead: A sentence for that warning: what does the same today.
    """

    default: Any = ANY
    instead: str = ""

    def says_something(self, value: Any) -> bool:
        """Whether somebody who gives this value expects an effect of it."""
        if self.default is ANY or value is None or value is self.default:
            return False
        return not (isinstance(value, bool | int | float | str) and value == self.default)


@dataclass(frozen=True, slots=True)
class Older:
    """How older releases called a constructor.

    Attributes:
        orders: The orders in which they took positional arguments, beside the constructor's own.
            The one that the values fit best is meant; `_KINDS` says what fits a name.
        renamed: `{old name: name of today}`.
        flags: `{old flag: (argument, value)}`: where the flag is true, the argument has the value.
        ignored: `{name: NoEffect()}`.
        implied: `{old name: {argument: value}}`: a call that gives the old name comes from a
            release that had other defaults for some arguments.
        convert: Takes all arguments by name and returns them, for what no table can say.
    """

    orders: Sequence[Sequence[str]] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    ignored: Mapping[str, NoEffect] = field(default_factory=dict)
    implied: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def __or__(self, other: Older) -> Older:
        """Join two tables; the second counts where both say something."""
        return Older(
            orders=(*self.orders, *other.orders),
            renamed={**self.renamed, **other.renamed},
            flags={**self.flags, **other.flags},
            ignored={**self.ignored, **other.ignored},
            implied={**self.implied, **other.implied},
            convert=other.convert or self.convert,
        )


def order(*names: str) -> tuple[str, ...]:
    """Return an order of positional arguments that begins with `model, config_list`."""
    return ("model", "config_list", *names)


def understands(older: Older) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Let a constructor be called as older releases were, too."""

    def decorate(init: Callable[P, None]) -> Callable[P, None]:
        whole = inspect.signature(init)
        taken = whole.replace(parameters=[*whole.parameters.values()][1:])

        @functools.wraps(init)
        def door(*args: P.args, **kwargs: P.kwargs) -> None:
            self, *values = args
            call: Any = init
            given = _translated(type(self).__name__, older, taken, values, kwargs)
            check_options(type(self), taken, (), given, (*older.renamed, *older.flags))
            call(self, **given)

        door.older_calls = older  # type: ignore[attr-defined]
        return door

    return decorate


def _translated(
    name: str,
    older: Older,
    taken: Signature,
    values: Sequence[Any],
    keywords: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the arguments of a call under the names of today."""
    parameters = list(taken.parameters.values())
    needed = {p.name for p in parameters if p.default is Parameter.empty}
    # By position, None in the place of what has a default only makes room for what comes after.
    given = {
        argument: value
        for argument, value in _named(name, older, parameters, values).items()
        if value is not None or argument in needed
    }
    for keyword in keywords:
        if keyword in given:
            raise OptionError(f"{name}: multiple values for argument {keyword!r}.")
    given |= keywords
    old_names = {argument for argument, value in given.items() if value is not None}
    for old, new in older.renamed.items():
        _rename(name, given, old, new)
    for flag, (argument, value) in older.flags.items():
        if given.pop(flag, None):
            if given.get(argument) not in (None, value):
                raise ConfigError(
                    f"{name} got {flag}=True and {argument}={given[argument]!r}, which contradict "
                    "each other; keep the latter."
                )
            given[argument] = value
    if older.convert is not None:
        given = older.convert(given)
    for argument, effect in older.ignored.items():
        if argument in given and effect.says_something(value := given.pop(argument)):
            instead = f" {effect.instead}" if effect.instead else ""
            warn(f"{name}: {argument}={shown(value)} has no effect here.{instead}")
    for argument, defaults in older.implied.items():
        if argument in old_names:
            given = {**defaults, **{n: v for n, v in given.items() if v is not None}}
    return given


def _named(
    name: str, older: Older, parameters: Sequence[Parameter], values: Sequence[Any]
) -> dict[str, Any]:
    """Return positional arguments under the names of the order that they fit best.

    Where a value fits in no order, the constructor says what is wrong with it.
    """

    def fit(names: Sequence[str]) -> tuple[int, bool]:
        return sum(map(_fits, names, values)), len(values) <= len(names)

    own = [p.name for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    names = max((own, *older.orders), key=fit)
    if len(values) > len(names):
        raise OptionError(
            f"{name} takes {', '.join(names)} by position, and got {len(values) - len(names)} more."
        )
    return dict(zip(names, values, strict=False))


def _rename(name: str, given: dict[str, Any], old: str, new: str) -> None:
    value = given.pop(old, None)
    if value is not None:
        if given.get(new) is not None:
            raise ConfigError(f"{name} got {old} and {new}, which mean the same; give one.")
        given[new] = value


# --- what tells orders apart: the kind of value that each argument has -------------------------


def _is_a(*kinds: type) -> Callable[[Any], bool]:
    """Return whether a value is of a kind; a truth value is no number."""
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


_is_count = _is_a(Integral)


def _is_function(value: Any) -> bool:
    """Whether it is a function: no class, and no evaluator, which trains as well as it scores."""
    return callable(value) and not isinstance(value, type) and not holds_training(value)


def _is_algorithm(value: Any) -> bool:
    return isinstance(value, str | type) or _is_function(value)


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    name: kind
    for kind, names in (
        (
            _is_count,
            "total_episode total_iteration num_iterations iterations admm_num_iterations "
            "training_epochs epochs epochs_per_iteration admm_training_epochs "
            "admm_epochs_per_iteration sparsifying_training_epochs training_batches training_steps "
            "statistics_batch_num sparsifying_training_batches warm_up_step "
            "cool_down_beginning_step",
        ),
        (
            _is_a(Real),
            "row scale start_temperature stop_temperature cool_down_rate perturbation_magnitude "
            "flops_ratio",
        ),
        (
            _is_a(bool),
            "dependency_aware global_sort keep_intermediate_result speedup reset_weight "
            "reset_weights",
        ),
        (_is_a(str), "activation base_algo granularity mode model_type optimize_mode"),
        (_is_a(Mapping), "admm_params ddpg_params pruning_params sa_params"),
        (looks_like_optimizer, "optimizer traced_optimizer"),
        (_is_function, "finetuner trainer"),
        (callable, "criterion evaluator"),
        (_is_algorithm, "pruning_algorithm"),
        (lambda value: not _is_count(value), "model"),
        (lambda value: not callable(value), "dummy_input"),
        (lambda value: hasattr(value, "state_dict"), "lr_scheduler"),
    )
    for name in names.split()
}


def _fits(name: str, value: Any) -> bool:
    return value is None or name not in _KINDS or _KINDS[name](value)
