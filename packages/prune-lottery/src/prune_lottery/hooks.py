"""What prune-lottery registers."""

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference


@hookimpl
def prune_register_pruners() -> dict[str, Reference]:
    """Register the lottery."""
    return {
        "lottery_ticket": Reference(
            "prune_lottery.pruner:LotteryTicketPruner",
            "Iterative pruning; rewinds the surviving weights to their initial values.",
            prunes="what its base algorithm prunes, single weights by default",
            paper="https://arxiv.org/abs/1803.03635",
        )
    }
