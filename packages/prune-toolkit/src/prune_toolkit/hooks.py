"""What prune-toolkit registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference

if TYPE_CHECKING:
    import typer


@hookimpl
def prune_register_pruners() -> dict[str, Reference]:
    """Register the pruner that is put together by names."""
    return {
        "composed": Reference(
            "prune_toolkit.composed:ComposedPruner",
            "Whatever its parts say, which are chosen by name.",
            prunes="what its allocator masks",
        )
    }


@hookimpl
def prune_register_parts() -> dict[str, dict[str, Reference]]:
    """Register the parts that most pruners are put together from."""

    def part(name: str, summary: str, paper: str = "") -> Reference:
        return Reference(f"prune_toolkit:{name}", summary, paper=paper)

    return {
        "collector": {
            "weight": part("WeightDataCollector", "The weights."),
            "gradient": part("GradientCollector", "A function of weights and their gradients."),
            "activation": part("ActivationCollector", "A statistic of what channels put out."),
            "activation_gradient": part(
                "ActivationGradientCollector", "A function of activations and their gradients."
            ),
            "input_norm": part("InputNormCollector", "The length of each input over all rows."),
            "input_mean": part("InputMeanCollector", "The mean of each input."),
            "input_variance": part("InputVarianceCollector", "The variance of each input."),
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
            "row": part("RowSparsityAllocator", "The same share of each row of a weight."),
            "block": part("BlockSparsityAllocator", "The smallest scores of each block."),
            "owl": part(
                "OutlierSparsityAllocator",
                "Less of blocks that have many outliers.",
                "https://arxiv.org/abs/2310.05175",
            ),
            "nm": part("NMSparsityAllocator", "All but n of every m along an axis."),
        },
        "reconstructor": {
            "least_squares": part(
                "LeastSquares", "Weights that stay, fitted to what the layer computed before."
            ),
            "bias": part(
                "BiasCompensation",
                "Biases that give what pruned weights gave on average.",
                "https://arxiv.org/abs/2312.11983",
            ),
            "batch_norm": part(
                "BatchNormStatistics", "Running statistics of batch norm, measured anew."
            ),
        },
    }


@hookimpl
def prune_register_commands(app: typer.Typer) -> None:
    """Add `prune new-plugin`."""
    from prune_toolkit import new_plugin

    app.command("new-plugin")(new_plugin.command)
