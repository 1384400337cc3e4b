"""What prune-export registers."""

from prune_core.hookspecs import hookimpl
from prune_core.reference import Reference


@hookimpl
def prune_register_exporters() -> dict[str, Reference]:
    """Register the formats, by the endings of their files."""

    def exporter(target: str, summary: str) -> Reference:
        return Reference(f"prune_export.{target}", summary)

    return {
        "xml": exporter("runtimes:openvino", "OpenVINO; needs prune-export[openvino]."),
        "pte": exporter("runtimes:executorch", "ExecuTorch; needs prune-export[executorch]."),
        "gguf": exporter("gguf:gguf", "GGUF for llama.cpp, of Llama and the like; needs [gguf]."),
    }
