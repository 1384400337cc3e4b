"""What prune-oneshot registers."""

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference

CHANNELS = "output channels"
WEIGHTS = "single weights"


def _at(target: str, summary: str, prunes: str = "", paper: str = "") -> Reference:
    return Reference(
        f"prune_oneshot.{target}",
        summary,
        prunes=prunes,
        paper=paper if ":" in paper or not paper else f"https://arxiv.org/abs/{paper}",
    )


@hookimpl
def prune_register_pruners() -> dict[str, Reference]:
    """Register the algorithms."""
    return {
        "wanda": _at(
            "wanda:WandaPruner", "The smallest weights times inputs.", WEIGHTS, "2306.11695"
        ),
        "ria": _at(
            "ria:RIAPruner",
            "The smallest weights, relative to their row and column, times inputs.",
            WEIGHTS,
            "https://openreview.net/forum?id=Tr0lPx9woF",
        ),
        "sparsegpt": _at(
            "sparsegpt:SparseGPTPruner",
            "What columns to the right can best make up for.",
            WEIGHTS,
            "2301.00774",
        ),
        "alps": _at(
            "alps:ALPSPruner",
            "What the least squares of a layer can best do without.",
            WEIGHTS,
            "2406.07831",
        ),
        "activation_norm": _at(
            "activation_norm:ActivationNormPruner",
            "The channels that send on least: inputs times outgoing weights.",
            CHANNELS,
            "2407.14679",
        ),
        "flap": _at(
            "flap:FLAPPruner",
            "The channels that vary least, with a bias for their mean.",
            CHANNELS,
            "2312.11983",
        ),
        "channel_obs": _at(
            "channel_obs:ChannelOBSPruner",
            "The channels that the others can best make up for.",
            CHANNELS,
            "2403.12983",
        ),
    }


@hookimpl
def prune_register_parts() -> dict[str, dict[str, Reference]]:
    """Register what the algorithms are made of and prune-core does not have."""
    return {
        "metric": {
            "wanda": _at("wanda:WandaMetricsCalculator", "Weights times the lengths of inputs."),
            "ria": _at("ria:RIAMetricsCalculator", "Relative weights times inputs."),
        },
    }
