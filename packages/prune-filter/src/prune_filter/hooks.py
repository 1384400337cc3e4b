"""What prune-filter registers."""

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference

CHANNELS = "output channels"
WEIGHTS = "single weights"


def _at(target: str, summary: str, prunes: str = "", paper: str = "") -> Reference:
    return Reference(
        f"prune_filter.{target}",
        summary,
        prunes=prunes,
        paper=f"https://arxiv.org/abs/{paper}" if paper else "",
    )


@hookimpl
def prune_register_pruners() -> dict[str, Reference]:
    """Register the algorithms."""
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
        "group_taylor": _at(
            "taylor:GroupTaylorPruner",
            "The least change of the loss to first order, a channel's weights together.",
            CHANNELS,
            "1906.10771",
        ),
        "hrank": _at(
            "hrank:HRankPruner", "Feature maps of the lowest rank.", CHANNELS, "2002.10179"
        ),
        "random": _at("random:RandomPruner", "At random: a baseline.", CHANNELS, "1801.10447"),
        "random_weight": _at(
            "random:RandomWeightPruner", "At random: a baseline.", WEIGHTS, "2202.02643"
        ),
        "nm": _at(
            "nm:NMPruner", "The smallest of every m, so that n are left.", WEIGHTS, "2104.08378"
        ),
        "movement": _at(
            "movement:MovementPruner", "What training moves towards zero.", WEIGHTS, "2005.07683"
        ),
        "snip": _at(
            "snip:SNIPPruner",
            "What the loss is least sensitive to, before training.",
            WEIGHTS,
            "1810.02340",
        ),
        "grasp": _at(
            "grasp:GraSPPruner",
            "What the flow of gradients is best without, before training.",
            WEIGHTS,
            "2002.07376",
        ),
        "synflow": _at(
            "synflow:SynFlowPruner",
            "What least flows through, before training and without data.",
            WEIGHTS,
            "2006.05467",
        ),
    }


@hookimpl
def prune_register_parts() -> dict[str, dict[str, Reference]]:
    """Register what the algorithms are made of and prune-core does not have."""
    return {
        "collector": {
            "sparse_scale": _at(
                "slim:SparseScaleCollector", "Scaling factors, trained towards zero."
            ),
            "taylor": _at("taylor:TaylorCollector", "First-order Taylor terms of channels."),
            "gradient_flow": _at(
                "grasp:GradientFlowCollector", "Weights times Hessian times gradient."
            ),
            "synaptic_flow": _at(
                "synflow:SynapticFlowCollector", "The flow through weights, without data."
            ),
        },
        "metric": {"random": _at("random:RandomMetricsCalculator", "Random scores.")},
    }
