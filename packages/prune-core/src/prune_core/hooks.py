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
def prune_register_pruners() -> dict[str, Reference]:
    """Register the pruner that is put together by names."""
    return {
        "composed": Reference(
            "prune_core.pruning.composed:ComposedPruner",
            "Whatever its parts say, which are chosen by name.",
            prunes="what its allocator masks",
        )
    }


@hookimpl
def prune_register_exporters() -> dict[str, Reference]:
    """Register the formats that torch itself brings, and those of other runtimes."""

    def exporter(name: str, summary: str, home: str = "exporting") -> Reference:
        return Reference(f"prune_core.pruning.{home}:{name}", summary)

    return {
        "onnx": exporter("onnx", "ONNX, for any batch size; needs the extra prune-core[onnx]."),
        "safetensors": exporter("safetensors", "The state dict, in a file that holds no code."),
        "pt2": exporter("program", "The program of torch.export, with torch.export.save."),
        "pt": exporter("state_dict", "The state dict, with torch.save."),
        "pth": exporter("state_dict", "The state dict, with torch.save."),
        "xml": exporter(
            "openvino", "OpenVINO's form; needs the extra prune-core[openvino].", "runtimes"
        ),
        "pte": exporter(
            "executorch", "An ExecuTorch program; needs prune-core[executorch].", "runtimes"
        ),
        "gguf": exporter(
            "gguf", "GGUF for llama.cpp, of Llama and the like; needs prune-core[gguf].", "gguf"
        ),
    }


@hookimpl
def prune_register_parts() -> dict[str, dict[str, Reference]]:
    """Register the parts that most pruners are put together from."""

    def part(name: str, summary: str, paper: str = "") -> Reference:
        return Reference(f"prune_core.tools:{name}", summary, paper=paper)

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
def prune_progress(task: Any) -> None:
    """Show how far things are, as prune does without any plugin."""
    from prune_core.progress.view import show

    show(task)
