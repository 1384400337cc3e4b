"""Cut a checkpoint as a plan says, into another one, and let the model see that."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prune_core.files import make_folder
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.checkpoint.shards import INDEX, Content, Shards, write_index, write_shard
from prune_speedup.torch.checkpoint.unfinished import Unfinished
from prune_speedup.torch.parts import cut, put
from prune_speedup.torch.tensors import Snapshot, cut_slices, cut_tensors, named

__all__ = ["CutCheckpoint"]

Kept = Mapping[int, Array]


class CutCheckpoint:
    """What a model has in files is cut into files.

    Attributes:
        digest: What tells the last cut, of this checkpoint, from any other.

    Args:
        source: What the model is made of.
        out: Where the smaller files go.
        unfinished: The folder that is being written; `out` is that, or in it.
    """

    def __init__(self, source: Shards, out: Path, unfinished: Unfinished) -> None:
        self._source, self._out, self._unfinished = source, out, unfinished
        self.digest = ""

    def by_plan(
        self,
        model: nn.Module,
        plan: Plan,
        masks: Mapping[str, Tensor],
        before: Snapshot | None = None,
    ) -> None:
        """Stand in for `cut_tensors`."""
        kept = {
            name: plan.kept(value)
            for value, names in plan.labelling.graph.tensors.items()
            for name in names
        }
        in_files = self._cut(model, kept)
        cut_tensors(model, plan, masks, before, lambda tensor: id(tensor) not in in_files)

    def by_slices(self, model: nn.Module, kept: Mapping[str, Kept]) -> None:
        """Stand in for `cut_slices`."""
        held, in_files = named(model), self._cut(model, kept)
        cut_slices(model, {n: axes for n, axes in kept.items() if id(held[n]) not in in_files})

    def discard(self) -> None:
        """Take away what was written."""
        self._unfinished.discard([*self._source.files, INDEX])

    def _cut(self, model: nn.Module, kept: Mapping[str, Kept]) -> set[int]:
        """Write the files, put what is in them in the model, and return which tensors these are."""
        held = named(model)
        self._write(kept)
        for name, tensor in Shards(self._out):
            put(held[name], tensor, None)
        return {id(held[name]) for names in self._source.files.values() for name in names}

    def _write(self, kept: Mapping[str, Kept]) -> None:
        self.digest = self._digest(kept)
        big = dict(self._source)
        files = self._source.files
        inside: dict[str, Content] = {
            file: {name: _smaller(big[name], kept.get(name, {})) for name in names}
            for file, names in files.items()
        }
        make_folder(self._out)
        self._unfinished.write(
            "cut",
            self.digest,
            self._out,
            list(files),
            lambda path, file: write_shard(
                path, inside[file], lambda name: cut(big[name], kept.get(name, {}))
            ),
        )
        content = {name: what for each in inside.values() for name, what in each.items()}
        write_index(self._out, files, content)

    def _digest(self, kept: Mapping[str, Kept]) -> str:
        told = hashlib.sha256(repr(self._source.state()).encode())
        for name in sorted(kept):
            for axis, indices in sorted(kept[name].items()):
                told.update(f"{name} {axis} ".encode() + indices.tobytes())
        return told.hexdigest()


def _smaller(tensor: Tensor, kept: Kept) -> tuple[torch.dtype, tuple[int, ...]]:
    shape = [*tensor.shape]
    for axis, indices in kept.items():
        shape[axis] = len(indices)
    return tensor.dtype, tuple(shape)
