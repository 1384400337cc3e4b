"""How sparsity grows while a run goes on.

Every curve is a function of `(progress, initial, final)`: progress runs from 0 to 1, and the
result from `initial` to `final`. Plain arithmetic, for every framework.
"""

from math import exp

__all__ = ["constant", "cubic", "geometric", "linear", "one_cycle"]


def constant(progress: float, initial: float, final: float) -> float:
    """Prune everything at once: `final` from the first step on.

    Args:
        progress: How far the run has come, from 0 to 1.
        initial: The sparsity at the beginning.
        final: The sparsity at the end.
    """
    return final


def linear(progress: float, initial: float, final: float) -> float:
    """Prune the same number of weights in each step.

    Args:
        progress: How far the run has come, from 0 to 1.
        initial: The sparsity at the beginning.
        final: The sparsity at the end.

    >>> [round(linear(t / 5, 0.0, 0.8), 3) for t in range(6)]
    [0.0, 0.16, 0.32, 0.48, 0.64, 0.8]
    """
    return initial + (final - initial) * progress


def cubic(progress: float, initial: float, final: float) -> float:
    """Prune fast while much is redundant and slowly at the end (Zhu and Gupta, 2017, "AGP").

    `final + (initial - final) · (1 - progress)³`

    Args:
        progress: How far the run has come, from 0 to 1.
        initial: The sparsity at the beginning.
        final: The sparsity at the end.

    >>> [round(cubic(t / 5, 0.0, 0.8), 3) for t in range(6)]
    [0.0, 0.39, 0.627, 0.749, 0.794, 0.8]
    """
    return final + (initial - final) * (1.0 - progress) ** 3


def geometric(progress: float, initial: float, final: float) -> float:
    """Prune the same share of what is left in each step, as lottery tickets do.

    `1 - (1 - initial) · ((1 - final) / (1 - initial))^progress`

    Args:
        progress: How far the run has come, from 0 to 1.
        initial: The sparsity at the beginning.
        final: The sparsity at the end.

    >>> [round(geometric(t / 5, 0.0, 0.8), 3) for t in range(6)]
    [0.0, 0.275, 0.475, 0.619, 0.724, 0.8]
    """
    if initial == 1.0:
        return 1.0
    left: float = ((1.0 - final) / (1.0 - initial)) ** progress
    return 1.0 - (1.0 - initial) * left


def one_cycle(progress: float, initial: float, final: float) -> float:
    """Prune in one smooth S-shaped sweep (Hubens et al., 2021, with α = 14 and β = 5).

    Unlike the published formula, which starts a little above `initial`, this one is shifted to
    begin at `initial` exactly.

    Args:
        progress: How far the run has come, from 0 to 1.
        initial: The sparsity at the beginning.
        final: The sparsity at the end.
    """

    def sigmoid(t: float) -> float:
        return 1.0 / (1.0 + exp(5.0 - 14.0 * t))

    share = (sigmoid(progress) - sigmoid(0.0)) / (sigmoid(1.0) - sigmoid(0.0))
    return initial + (final - initial) * share
