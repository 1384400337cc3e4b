"""Plots of searches, with matplotlib: `pip install 'prune-schedule[plot]'`.

Each function draws on the axes that it is given, or on new ones, and returns them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prune_core import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_history", "plot_sensitivity", "plot_sparsities"]


def plot_history(
    trials: Iterable[Mapping[str, Any]],
    optimize_mode: str = "maximize",
    ax: Axes | None = None,
) -> Axes:
    """Draw the score of each trial and the best so far; trials that failed are crosses below.

    Args:
        trials: `result.trials`, or `pruner.trials`.
        optimize_mode: That of the search.
        ax: Where to draw.
    """
    trials = list(trials)
    scores = {t["trial"]: t["score"] for t in trials if t.get("score") is not None}
    if not scores:
        raise ConfigError("None of the trials has a score, so there is no history to draw.")
    ax = ax or _new_axes()
    ax.plot(list(scores), list(scores.values()), "o", alpha=0.5, label="trial")
    better = min if optimize_mode == "minimize" else max
    best: list[float] = []
    for score in scores.values():
        best.append(score if not best else better(best[-1], score))
    ax.step(list(scores), best, where="post", label="best so far")
    if failed := [t["trial"] for t in trials if t.get("score") is None]:
        bottom = ax.get_xaxis_transform()
        ax.plot(
            failed, [0.02] * len(failed), "x", color="tab:red", transform=bottom, label="failed"
        )
    ax.set_xlabel("trial")
    ax.set_ylabel("score")
    ax.legend()
    return ax


def plot_sparsities(sparsities: Mapping[str, float], ax: Axes | None = None) -> Axes:
    """Draw how sparse each layer is, in the order of the model.

    Args:
        sparsities: `result.sparsities`, `pruner.sparsities`, or those of a trial.
        ax: Where to draw.
    """
    if not sparsities:
        raise ConfigError("There is no layer to draw.")
    ax = ax or _new_axes()
    ax.barh(list(sparsities), list(sparsities.values()))
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("sparsity")
    return ax


def plot_sensitivity(
    curves: Iterable[Mapping[str, Any]], number: int = 1, ax: Axes | None = None
) -> Axes:
    """Draw the score over the sparsity of each layer that was pruned alone, a line for each.

    Args:
        curves: The `curves` of a `SensitivityPruner`.
        number: Of which round, from 1.
        ax: Where to draw.
    """
    rounds: dict[int, dict[str, list[tuple[float, float]]]] = {}
    for point in curves:
        lines = rounds.setdefault(point["round"], {})
        if point["score"] is not None:
            lines.setdefault(point["layer"], []).append((point["sparsity"], point["score"]))
    if number not in rounds:
        there = ", ".join(map(str, rounds)) or "none"
        raise ConfigError(f"number is {number}; the curves have the rounds {there}.")
    ax = ax or _new_axes()
    for layer, line in rounds[number].items():
        ax.plot(*zip(*line, strict=True), "o-", label=layer)
    ax.set_xlabel("sparsity of the layer")
    ax.set_ylabel("score")
    ax.legend(title="layer")
    return ax


def _new_axes() -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingDependencyError(
            "Drawing needs matplotlib: `pip install 'prune-schedule[plot]'`."
        ) from None
    return pyplot.subplots(layout="constrained")[1]
