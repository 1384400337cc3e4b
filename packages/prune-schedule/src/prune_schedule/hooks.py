"""What prune-schedule registers."""

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference


def _at(target: str, summary: str, paper: str = "") -> Reference:
    return Reference(
        f"prune_schedule.{target}",
        summary,
        prunes="what its pruning_algorithm does",
        paper=f"https://arxiv.org/abs/{paper}" if paper else "",
    )


@hookimpl
def prune_register_pruners() -> dict[str, Reference]:
    """Register schedules and searches."""
    return {
        "admm": _at(
            "timed.admm:ADMMPruner",
            "Trains weights towards sparse ones, then prunes.",
            "1804.03294",
        ),
        "agp": _at(
            "timed.agp:AGPPruner",
            "Automated gradual pruning: fast at first, slow at the end.",
            "1710.01878",
        ),
        "amc": _at(
            "search.amc.pruner:AMCPruner",
            "Reinforcement learning of the sparsity of each layer; needs prune-schedule[amc].",
            "1802.03494",
        ),
        "autocompress": _at(
            "search.autocompress.pruner:AutoCompressPruner",
            "Rounds of simulated annealing, ADMM training and speedup.",
            "1907.03141",
        ),
        "constant": _at(
            "timed.constant:ConstantPruner", "The final sparsity at once, then training."
        ),
        "gradual": _at("timed.gradual:GradualPruner", "Gradual pruning along any curve."),
        "linear": _at("timed.linear:LinearPruner", "Gradual pruning in equal steps."),
        "netadapt": _at(
            "search.netadapt:NetAdaptPruner",
            "Step by step the layer whose loss costs least, with fine-tuning.",
            "1804.03230",
        ),
        "one_cycle": _at(
            "timed.one_cycle:OneCyclePruner",
            "Gradual pruning along one S-shaped curve.",
            "2107.02086",
        ),
        "sensitivity": _at(
            "search.sensitivity:SensitivityPruner",
            "Layers in proportion to how much they tolerate before the score drops.",
            "1506.02626",
        ),
        "simulated_annealing": _at(
            "search.annealing:SimulatedAnnealingPruner",
            "Simulated annealing of the sparsity of each layer.",
            "1907.03141",
        ),
    }
