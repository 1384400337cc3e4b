"""The two orders in which older releases took positional arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.evaluators import holds_training
from prune_schedule.optimizer_steps import looks_like_optimizer

__all__ = ["ITERATIVE", "TRAINED", "by_position", "first_given", "named"]

# AGPPruner(model, config_list, optimizer, 'level')
TRAINED = ("optimizer", "pruning_algorithm")
# AGPPruner(model, config_list, 'level', 10, './log', …)
ITERATIVE = (
    "pruning_algorithm",
    "total_iteration",
    "log_dir",
    "keep_intermediate_result",
    "finetuner",
    "speedup",
    "dummy_input",
    "evaluator",
    "pruning_params",
)
# AGPPruner(model, config_list, 'level', 10, './log', False, evaluator, …): one that trains as well
WITH_EVALUATOR = (*ITERATIVE[:4], "evaluator", "speedup", "pruning_params")


def named(owner: str, forms: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return positional arguments under their names.

    Args:
        owner: What messages call the class.
        forms: The arguments after `model` and `config_list`.
        given: Those given by name; the ones that are None were not given.

    Raises:
        TypeError: When there are too many, or one is given twice.
    """
    names: Sequence[str] = ITERATIVE
    if forms and looks_like_optimizer(forms[0]):
        names = TRAINED
    elif len(forms) > 4 and holds_training(forms[4]):
        names = WITH_EVALUATOR
    return by_position(owner, names, forms, given)


def by_position(
    owner: str,
    names: Sequence[str],
    forms: Sequence[Any],
    given: Mapping[str, Any],
    before: Sequence[str] = ("model", "config_list"),
) -> dict[str, Any]:
    """Return positional arguments, which follow others that have been taken, under these names."""
    if len(forms) > len(names):
        raise TypeError(
            f"{owner}() takes {', '.join((*before, *names))} by position, and got "
            f"{len(forms) - len(names)} more."
        )
    named = dict(zip(names, forms, strict=False))
    for name in named:
        if given.get(name) is not None:
            raise TypeError(f"{owner}() got multiple values for argument {name!r}")
    return named


def first_given(*values: Any) -> Any:
    """Return the first that is not None, of what different releases called differently."""
    return next((value for value in values if value is not None), None)
