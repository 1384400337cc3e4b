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
    """Register the schedules."""
    return {
        "admm": _at(
            "timed.admm:ADMMPruner", "Trains weights to where pruning does not hurt.", "1804.03294"
        ),
        "agp": _at(
            "timed.agp:AGPPruner", "Grows fast at first and slowly at the end.", "1710.01878"
        ),
        "amc": _at(
            "search.amc.pruner:AMCPruner",
            "An agent learns how much each layer can lose; needs the extra prune-schedule[amc].",
            "1802.03494",
        ),
        "autocompress": _at(
            "search.autocompress.pruner:AutoCompressPruner",
            "In rounds: annealing finds the distribution, ADMM trains towards it, speedup removes.",
            "1907.03141",
        ),
        "constant": _at("timed.constant:ConstantPruner", "Everything at once, then training."),
        "gradual": _at("timed.gradual:GradualPruner", "Grows along any curve."),
        "linear": _at("timed.linear:LinearPruner", "Grows by the same amount each time."),
        "netadapt": _at(
            "search.netadapt:NetAdaptPruner",
            "Round by round, the layer whose loss hurts least, fine-tuned in between.",
            "1804.03230",
        ),
        "one_cycle": _at(
            "timed.one_cycle:OneCyclePruner", "Grows in one smooth S-shaped sweep.", "2107.02086"
        ),
        "sensitivity": _at(
            "search.sensitivity:SensitivityPruner",
            "Layers lose what they tolerate, by how much the score drops.",
            "1506.02626",
        ),
        "simulated_annealing": _at(
            "search.annealing:SimulatedAnnealingPruner",
            "The distribution over layers that scores best, searched by annealing.",
            "1907.03141",
        ),
    }
