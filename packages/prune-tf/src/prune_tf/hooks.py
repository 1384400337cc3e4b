"""What prune-tf registers."""

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference

CHANNELS = "output channels"
WEIGHTS = "single weights"


def _at(target: str, summary: str, prunes: str, paper: str = "") -> Reference:
    return Reference(
        f"prune_tf.pruning.{target}",
        summary,
        prunes=prunes,
        paper=f"https://arxiv.org/abs/{paper}" if paper else "",
        framework="keras",
    )


def _gradual(name: str, summary: str, paper: str = "") -> Reference:
    return Reference(
        f"prune_tf.gradual:{name}",
        summary,
        prunes="what a pruner of your choice prunes",
        paper=f"https://arxiv.org/abs/{paper}" if paper else "",
        framework="keras",
    )


def _search(target: str, summary: str, paper: str) -> Reference:
    return Reference(
        f"prune_tf.search.{target}",
        summary,
        prunes="what a pruner of your choice prunes",
        paper=f"https://arxiv.org/abs/{paper}",
        framework="keras",
    )


@hookimpl
def prune_register_engines() -> dict[str, Reference]:
    """Register the engine for Keras models."""
    return {
        "keras": Reference(
            "prune_tf:engine",
            "Finds coupled channels of Keras models, rebuilds them smaller, compares the results.",
        )
    }


@hookimpl
def prune_register_pruners() -> dict[str, Reference]:
    """Register the algorithms, under the names that they have for torch."""
    return {
        "level": _at("level:LevelPruner", "The smallest absolute values.", WEIGHTS, "1506.02626"),
        "l1": _at("norm:L1NormPruner", "The smallest L1 norms of weights.", CHANNELS, "1608.08710"),
        "l2": _at("norm:L2NormPruner", "The smallest L2 norms of weights.", CHANNELS, "1608.08710"),
        "fpgm": _at("fpgm:FPGMPruner", "Nearest to the geometric median.", CHANNELS, "1811.00250"),
        "slim": _at(
            "slim:SlimPruner",
            "The smallest scaling factors of batch norm, trained towards zero.",
            "channels of batch norm",
            "1708.06519",
        ),
        "apoz": _at(
            "activation:ActivationAPoZRankPruner",
            "The activations that are zero most often.",
            CHANNELS,
            "1607.03250",
        ),
        "mean_activation": _at(
            "activation:ActivationMeanRankPruner",
            "The smallest mean activations.",
            CHANNELS,
            "1611.06440",
        ),
        "taylorfo": _at(
            "taylor:TaylorFOWeightPruner",
            "The least change of the loss to first order, weight by weight.",
            CHANNELS,
            "1906.10771",
        ),
        "wanda": _at(
            "wanda:WandaPruner", "The smallest weights times inputs.", WEIGHTS, "2306.11695"
        ),
        "nm": _at(
            "nm:NMPruner", "The smallest of every m, so that n are left.", WEIGHTS, "2104.08378"
        ),
        "block": _at("block:BlockPruner", "The blocks of smallest norm.", "blocks of weights"),
        "lottery_ticket": Reference(
            "prune_tf.lottery:LotteryTicketPruner",
            "Iterative pruning; puts the surviving weights back to their initial values.",
            prunes="what its base algorithm prunes, single weights by default",
            paper="https://arxiv.org/abs/1803.03635",
            framework="keras",
        ),
        "simulated_annealing": _search(
            "annealing:SimulatedAnnealingPruner",
            "Simulated annealing of the sparsity of each layer.",
            "1907.03141",
        ),
        "sensitivity": _search(
            "sensitivity:SensitivityPruner",
            "Each layer in proportion to what it tolerates.",
            "1506.02626",
        ),
        "netadapt": _search(
            "netadapt:NetAdaptPruner",
            "Step by step, the layer whose loss costs least.",
            "1804.03230",
        ),
        "amc": _search(
            "amc:AMCPruner",
            "Reinforcement learning of the sparsity of each layer; needs prune-tf[amc].",
            "1802.03494",
        ),
        "autocompress": _search(
            "autocompress.pruner:AutoCompressPruner",
            "Rounds of annealing, ADMM training and shrinking.",
            "1907.03141",
        ),
        "admm": Reference(
            "prune_tf.admm:ADMMPruner",
            "Trains weights towards sparse ones, then prunes.",
            prunes="what a pruner of your choice prunes",
            paper="https://arxiv.org/abs/1804.03294",
            framework="keras",
        ),
        "agp": _gradual("AGPPruner", "Gradual pruning along a cubic curve.", "1710.01878"),
        "gradual": _gradual("GradualPruner", "Gradual pruning along any curve."),
        "linear": _gradual("LinearPruner", "Gradual pruning in equal steps."),
    }
