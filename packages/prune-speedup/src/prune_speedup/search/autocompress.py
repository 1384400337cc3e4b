"""What the arguments of AutoCompress come to, in any framework: for searches, and for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prune_core import ConfigError
from prune_core.callables import check_takes_model
from prune_core.evaluators import holds_training
from prune_speedup.search.admm import GRANULARITIES
from prune_speedup.search.user_functions import OfModel, functions_of

__all__ = ["Settings", "settings_from"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What was given, sorted by what it is for.

    Attributes:
        evaluate: Takes the model and returns its score.
        finetune: Takes the model and trains it at the end of each round, or None.
        dummy_input: An input of the model, or None.
        pruning_algorithm: A registered pruner, or a class.
        pruning_params: Further arguments of it.
        search: Further arguments of the search in each round.
        training: Further arguments of ADMM in each round.
    """

    evaluate: OfModel
    finetune: OfModel | None
    dummy_input: Any
    pruning_algorithm: str | Callable[..., Any]
    pruning_params: dict[str, Any]
    search: dict[str, Any]
    training: dict[str, Any]


def settings_from(
    *,
    evaluate: OfModel | None,
    finetuner: OfModel | None,
    dummy_input: Any,
    admm_params: Mapping[str, Any] | None,
    sa_params: Mapping[str, Any] | None,
    pruning_algorithm: str | Callable[..., Any] | None,
    pruning_params: Mapping[str, Any] | None,
    search: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Settings:
    """Sort the arguments of `AutoCompressPruner`.

    Args:
        evaluate: As there.
        finetuner: As there.
        dummy_input: As there.
        admm_params: As there.
        sa_params: As there.
        pruning_algorithm: As there.
        pruning_params: As there.
        search: Arguments of the search that were given by themselves; None was not given.
        training: Arguments of ADMM that were given by themselves; None was not given.

    Raises:
        ConfigError: When nothing scores the model, or nothing trains it.
    """
    admm, annealing = dict(admm_params or {}), dict(sa_params or {})
    evaluate = evaluate or annealing.get("evaluator")
    annealing.pop("evaluator", None)
    check_takes_model("finetuner", finetuner, "the model and trains it")
    functions = functions_of(finetuner, evaluate)
    if functions.evaluate is None:
        raise ConfigError(
            "AutoCompressPruner searches for what scores best: give evaluate= (or evaluator=), a "
            "function that takes the model and returns a number."
        )
    algorithm = _algorithm(pruning_algorithm, admm, annealing, "l1" if admm_params is None else "")
    params = {**annealing.pop("pruning_params", {}), **(pruning_params or {})}
    return Settings(
        functions.evaluate,
        functions.finetune,
        functions.or_example(dummy_input),
        algorithm,
        params,
        {**_given(search), **annealing},
        _training({**training, **admm}, evaluate),
    )


def _algorithm(
    said: str | Callable[..., Any] | None,
    admm: dict[str, Any],
    annealing: dict[str, Any],
    default: str,
) -> str | Callable[..., Any]:
    """Take what says how to prune out of all arguments, and return what counts."""
    granularity = admm.pop("granularity", None)
    if granularity not in (None, *GRANULARITIES):
        raise ConfigError(
            f"admm_params['granularity'] is {granularity!r}; it must be one of "
            f"{', '.join(GRANULARITIES)}."
        )
    ways = (
        said,
        *(admm.pop(name, None) for name in ("pruning_algorithm", "base_algo")),
        GRANULARITIES.get(granularity or ""),
        annealing.pop("pruning_algorithm", None),
    )
    return next(filter(None, ways), default or "level")


def _training(given: Mapping[str, Any], evaluate: OfModel | None) -> dict[str, Any]:
    """Return the arguments of ADMM, with something that trains among them."""
    training = _given(given)
    trains = {"trainer", "finetune", "evaluator"}
    if holds_training(evaluate) and not trains & training.keys():
        training["evaluator"] = evaluate
    if not trains & training.keys():
        raise ConfigError(
            "AutoCompressPruner trains the model: give finetune=, a function that takes the model "
            "and trains it for an epoch, or what scripts for NNI give: trainer=, with a torch "
            "model, or an evaluator that trains."
        )
    return training


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
