"""Cut a checkpoint as a plan says, into another one, and let the model see that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_core.files import make_folder, replacing
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.checkpoint.shards import INDEX, Content, Shards, write_index, write_shard
from prune_speedup.torch.tensors import cut, cut_tensors, put

__all__ = ["CutCheckpoint"]

UNFINISHED = ".prune-unfinished.json"
"""Which shards are written, and of which plan: who begins again goes on there."""

Kept = Mapping[int, Array]


class CutCheckpoint:
    """Stands in for `cut_tensors`: what a model has in files is cut into files.

    Args:
        source: What the model is made of.
        out: Where the smaller files go.

    Raises:
        ConfigError: There is something else in that folder.
    """

    def __init__(self, source: Shards, out: Path) -> None:
        self._source, self._out = source, out
        if out.is_dir() and any(out.iterdir()) and not (out / UNFINISHED).is_file():
            raise ConfigError(f"out is {str(out)!r}, and there is something in it; give another.")
        make_folder(out)
        self.written: list[str] = []

    def __call__(self, model: nn.Module, plan: Plan, masks: Mapping[str, Tensor]) -> None:
        """Write the shards, and put them into the model in place of the big tensors."""
        kept = {
            name: plan.kept(value)
            for value, names in plan.labelling.graph.tensors.items()
            for name in names
        }
        self._write(kept)
        named = dict(
            [
                *model.named_parameters(remove_duplicate=False),
                *model.named_buffers(remove_duplicate=False),
            ]
        )
        in_files = {id(named[name]) for names in self._source.files.values() for name in names}
        cut_tensors(model, plan, masks, lambda tensor: id(tensor) not in in_files)
        for name, tensor in Shards(self._out):
            put(named[name], tensor, None)

    def finish(self) -> None:
        """Say that all is written."""
        (self._out / UNFINISHED).unlink(missing_ok=True)

    def discard(self) -> None:
        """Take away what was written."""
        for file in [*self.written, INDEX, UNFINISHED]:
            (self._out / file).unlink(missing_ok=True)

    def _write(self, kept: Mapping[str, Kept]) -> None:
        digest = self._digest(kept)
        done = self._done(digest)
        content: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self.written = [*self._source.files]
        big = dict(self._source)
        for file, names in self._source.files.items():
            inside: Content = {name: _smaller(big[name], kept.get(name, {})) for name in names}
            content |= inside
            if file not in done or not (self._out / file).is_file():
                write_shard(
                    self._out / file, inside, lambda name: cut(big[name], kept.get(name, {}))
                )
                done.append(file)
                self._note(digest, done)
        write_index(self._out, self._source.files, content)

    def _done(self, digest: str) -> list[str]:
        marker = self._out / UNFINISHED
        if marker.is_file():
            told = json.loads(marker.read_text())
            if told.get("plan") == digest:
                return list(told["done"])
        self._note(digest, [])
        return []

    def _note(self, digest: str, done: list[str]) -> None:
        with replacing(self._out / UNFINISHED) as file:
            file.write(json.dumps({"plan": digest, "done": done}).encode())

    def _digest(self, kept: Mapping[str, Kept]) -> str:
        """What tells this plan, of this checkpoint, from any other."""
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
