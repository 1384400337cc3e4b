"""Read a safetensors file: the numbers of each tensor, and their hash."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize

__all__ = ["read_tensors"]


def read_tensors(path: str | Path) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """`{name: (sha256 of type, shape and bytes, numbers)}` of a safetensors file."""
    tensors = {}
    for name, entry in deserialize(Path(path).read_bytes()):  # type: ignore[no-untyped-call]
        kind, shape, raw = entry["dtype"], entry["shape"], entry["data"]
        digest = hashlib.sha256(f"{kind}{shape}".encode())
        digest.update(raw)
        if kind == "BF16":
            numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            code = "?" if kind == "BOOL" else f"<{kind[0].lower()}{int(kind[1:]) // 8}"
            numbers = np.frombuffer(raw, code)
        tensors[name] = digest.hexdigest(), numbers.reshape(shape)
    return tensors
