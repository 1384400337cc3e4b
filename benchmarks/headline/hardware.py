"""What the experiments run on, and how they use it."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Hardware"]


@dataclass(frozen=True)
class Hardware:
    """A device, and what is switched on there."""

    device: str = "cpu"
    precision: str = "float32"  # float32, tf32 or bf16 (autocast)
    graphs: bool = False  # a training step is captured once, and then replayed
    compiled: bool = False  # the model goes through torch.compile before it is trained

    @classmethod
    def found(
        cls, device: str | None, precision: str | None, graphs: bool | None, compiled: bool
    ) -> Hardware:
        """Return the hardware that there is, and what pays on it unless told otherwise."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        gpu = device.startswith("cuda")
        return cls(
            device,
            precision or ("bf16" if gpu else "float32"),
            graphs is not False and gpu,
            compiled,
        )

    def __post_init__(self) -> None:
        tf32 = self.precision != "float32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        # Shapes stand still while a network trains, so the fastest kernel is worth a search.
        torch.backends.cudnn.benchmark = self.device.startswith("cuda")

    def autocast(self) -> AbstractContextManager[object]:
        if self.precision != "bf16":
            return nullcontext()
        kind = torch.device(self.device).type
        # Weights change in every step, and a graph may not keep casts of older ones.
        return torch.autocast(kind, torch.bfloat16, cache_enabled=not self.graphs)

    def synchronize(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    @property
    def name(self) -> str:
        """Return what a reader of the results wants to know: which card, or which processor."""
        if self.device.startswith("cuda"):
            return torch.cuda.get_device_name(self.device)
        information = Path("/proc/cpuinfo")
        lines = information.read_text().splitlines() if information.exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        threads = torch.get_num_threads()
        used = "1 thread" if threads == 1 else f"{threads} threads"
        return f"{names[0] if names else platform.processor() or platform.machine()}, {used}"
