"""The masked model that a certificate starts from, and tensors as the checker reads them."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prune_speedup.engine.plan import Plan

__all__ = ["NoCertificateError", "Numbers", "Reference", "numbers_of"]

Tensors = Mapping[str, torch.Tensor]
Numbers = dict[str, tuple[str, Any]]
"""What `prune_verify.tensors.read_tensors` makes of a file."""


class NoCertificateError(Exception):
    """What the vocabulary cannot say, or the checker does not follow."""


@dataclass(slots=True)
class Reference:
    """The masked model that a certificate starts from.

    Attributes:
        tensors: Its parameters and buffers, before any mask.
        masks: `{tensor name: bool mask}`.
        remark: What was done to the model that was given to get there, in words.
        gone: The slices that are masked besides, `{tensor name: {axis: indices}}`.
    """

    tensors: Tensors
    masks: Tensors
    remark: str = ""
    gone: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, masks: Tensors, remark: str = "") -> "Reference":
        """The model as it is now; nothing is copied."""
        named = (*model.named_parameters(), *model.named_buffers())
        return cls({name: tensor.data for name, tensor in named}, dict(masks), remark)

    def masked(self, name: str) -> torch.Tensor:
        """A tensor with its mask."""
        tensor, mask, gone = self.tensors[name], self.masks.get(name), self.gone.get(name)
        if mask is not None:
            tensor = tensor.masked_fill(~mask.to(tensor.device, torch.bool), 0)
        elif gone:
            tensor = tensor.clone()
        for axis, indices in (gone or {}).items():
            tensor.index_fill_(axis, indices.to(tensor.device), 0)
        return tensor

    def without(self, plan: Plan) -> "Reference":
        """The same, where the parameters' slices that a plan removes are masked as well."""
        graph = plan.labelling.graph
        gone: dict[str, dict[int, torch.Tensor]] = {}
        for value in graph.parameters:
            for axis, kept in plan.kept(value).items():
                name = next(n for n in graph.tensors[value] if n in self.tensors)
                removed = torch.ones(self.tensors[name].shape[axis], dtype=torch.bool)
                removed[torch.from_numpy(kept)] = False
                gone.setdefault(name, {})[axis] = removed.nonzero().flatten()
        return Reference(self.tensors, self.masks, self.remark, gone)


_CODES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
}  # fmt: skip


_LARGE = 1 << 20
"""From so many bytes on, a tensor is worth a turn of another processor."""


def numbers_of(tensors: Tensors) -> Numbers:
    """Tensors as the checker reads them from a file; large ones are hashed on all processors."""
    large = [name for name, tensor in tensors.items() if tensor.nbytes >= _LARGE]
    with ThreadPoolExecutor() as pool:
        found = dict(zip(large, pool.map(lambda n: _number_of(n, tensors[n]), large), strict=True))
        return {
            name: found[name] if name in found else _number_of(name, tensor)
            for name, tensor in tensors.items()
        }


def _number_of(name: str, tensor: torch.Tensor) -> tuple[str, Any]:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype not in _CODES:
        raise NoCertificateError(f"{name} is of type {tensor.dtype}, which the checker cannot read")
    half = tensor.dtype == torch.bfloat16
    raw = tensor.view(torch.int16) if half else tensor
    digest = hashlib.sha256(f"{_CODES[tensor.dtype]}{list(tensor.shape)}".encode())
    digest.update(raw.reshape(-1).numpy().data)
    return digest.hexdigest(), (tensor.float() if half else tensor).numpy()
