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
def prune_progress(task: Any) -> None:
    """Show how far things are, as prune does without any plugin."""
    from prune_core.progress.view import show

    show(task)
