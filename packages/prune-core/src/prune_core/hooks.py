"""What prune-core itself registers."""

from typing import Any

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference


@hookimpl
def prune_register_schedules() -> dict[str, Reference]:
    """Register the curves that every framework shares."""

    def curve(name: str, summary: str, paper: str = "") -> Reference:
        return Reference(f"prune_core.curves:{name}", summary, paper=paper, framework="")

    return {
        "constant": curve("constant", "The final sparsity from the first step on."),
        "linear": curve("linear", "The same number of weights in each step."),
        "cubic": curve(
            "cubic",
            "Fast at first, slow at the end: automated gradual pruning (AGP).",
            "https://arxiv.org/abs/1710.01878",
        ),
        "geometric": curve(
            "geometric",
            "The same share of what is left in each step.",
            "https://arxiv.org/abs/1803.03635",
        ),
        "one_cycle": curve(
            "one_cycle", "One smooth S-shaped sweep.", "https://arxiv.org/abs/2107.02086"
        ),
    }


@hookimpl
def prune_register_parts() -> dict[str, dict[str, Reference]]:
    """Register the parts that most pruners are put together from."""

    def part(name: str, summary: str) -> Reference:
        return Reference(f"prune_core.tools:{name}", summary)

    return {
        "collector": {
            "weight": part("WeightDataCollector", "The weights."),
            "gradient": part("GradientCollector", "A function of weights and their gradients."),
            "activation": part("ActivationCollector", "A statistic of what channels put out."),
            "activation_gradient": part(
                "ActivationGradientCollector", "A function of activations and their gradients."
            ),
        },
        "metric": {
            "straight": part("StraightMetricsCalculator", "The data as it is."),
            "norm": part("NormMetricsCalculator", "A p-norm over what the scores do not keep."),
            "distance": part("DistMetricsCalculator", "Distances to all other slices."),
        },
        "allocator": {
            "normal": part("NormalSparsityAllocator", "The same share of each module."),
            "global": part("GlobalSparsityAllocator", "The smallest scores of all modules."),
            "bank": part("BankSparsityAllocator", "The same share of each block of a weight."),
            "nm": part("NMSparsityAllocator", "All but n of every m along an axis."),
        },
    }


@hookimpl
def prune_progress(task: Any) -> None:
    """Show how far things are, as prune does without any plugin."""
    from prune_core.progress.view import show

    show(task)
