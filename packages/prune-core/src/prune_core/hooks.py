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
def prune_progress(task: Any) -> None:
    """Show how far things are, as prune does without any plugin."""
    from prune_core.progress.view import show

    show(task)
