"""What prune-export registers."""

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference


@hookimpl
def prune_register_exporters() -> dict[str, Reference]:
    """Register the formats, by the endings of their files."""

    def exporter(target: str, summary: str) -> Reference:
        return Reference(f"prune_export.{target}", summary)

    return {
        "onnx": exporter("onnx:onnx", "ONNX, for any batch size; needs prune-export[onnx]."),
        "safetensors": exporter("states:safetensors", "The state dict, in a file without code."),
        "pt2": exporter("programs:program", "The program of torch.export, with its weights."),
        "pt": exporter("states:state_dict", "The state dict, with torch.save."),
        "pth": exporter("states:state_dict", "The state dict, with torch.save."),
        "xml": exporter("runtimes:openvino", "OpenVINO; needs prune-export[openvino]."),
        "pte": exporter("runtimes:executorch", "ExecuTorch; needs prune-export[executorch]."),
        "gguf": exporter("gguf:gguf", "GGUF for llama.cpp, of Llama and the like; needs [gguf]."),
    }
