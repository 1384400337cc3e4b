"""Tensors that files hold in other pieces, or by other names, than the model.

transformers puts the experts of a mixture together when it loads them, and takes them apart when it
saves them:

    in files   experts.0.gate_proj.weight, experts.0.up_proj.weight, experts.1.gate_proj.weight …
    in memory  experts.gate_up_proj, one slice for each expert

Here the same is done with its own converters, for one tensor of the model after the other, between
files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_speedup.torch.checkpoint.shards import Content, Shards, write_index, write_shard
from prune_speedup.torch.checkpoint.unfinished import Unfinished

__all__ = ["Conversion", "JoinedShards", "conversion_of"]

Tensors = dict[str, Tensor]


@dataclass(slots=True)
class _Group:
    """Tensors of files, and those of the model that are made of them all."""

    converter: Any
    key: str
    sources: list[tuple[str, str]] = field(default_factory=list)
    """The name of each in the files, and the pattern by which it is known."""
    targets: list[str] = field(default_factory=list)


class Conversion:
    """How the tensors of some files become those of a model, and the other way round.

    Attributes:
        files: By the name of a file, the tensors of the model that are made of what begins in it.
    """

    def __init__(self, model: nn.Module, shards: Shards, groups: list[_Group]) -> None:
        self._model: Any = model
        self._shards = shards
        meta = {name: _empty(tensor) for name, tensor in shards}
        home = {name: file for file, names in shards.files.items() for name in names}
        self.files: dict[str, list[str]] = {}
        self._groups: dict[str, _Group] = {}
        self._shapes: Tensors = {}
        for group in groups:
            try:
                made = self._joined(group, meta)
            except Exception as error:  # of converters that are not ours
                raise ConfigError(
                    f"{group.key!r} cannot be made of {group.sources[0][0]!r} and the "
                    f"{len(group.sources) - 1} others in the files that belong to it: {error}. "
                    "Is one missing?"
                ) from error
            group.targets = list(made)
            self._shapes |= made
            self._groups |= dict.fromkeys(made, group)
            self.files.setdefault(home[group.sources[0][0]], []).extend(made)
            self._expect_the_way_back(group, made, meta)

    def is_plain(self, target: str) -> bool:
        """Whether a tensor of the model is one of the files, perhaps by another name."""
        return self._groups[target].converter is None

    def source_of(self, target: str) -> str:
        """The name in the files of a tensor that is there as it is."""
        return self._groups[target].sources[0][0]

    def join(self, unfinished: Unfinished) -> JoinedShards:
        """Write what has to be put together, and return all that the model is made of."""
        folder = unfinished.work / "joined"
        big = dict(self._shards)
        files = {
            file: names
            for file, targets in self.files.items()
            if (names := [each for each in targets if not self.is_plain(each)])
        }

        def write(path: Path, file: str) -> None:
            content = {name: _what(self._shapes[name]) for name in files[file]}
            write_shard(path, content, _Made(lambda name: self._joined(self._groups[name], big)))

        digest = repr(self._shards.state())
        unfinished.write("joined", digest, folder, list(files), write)
        return JoinedShards(self, self._shards, folder, files)

    def take_apart(self, small: Shards, unfinished: Unfinished, digest: str) -> None:
        """Write a smaller checkpoint in the pieces, and by the names, of the files.

        Args:
            small: The tensors of the smaller model.
            unfinished: Where the files go.
            digest: What tells these tensors from any other.
        """
        tensors = dict(small)
        files: dict[str, list[str]] = {}
        content: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        inside: dict[str, Content] = {}
        origin: dict[str, str] = {}
        for file, targets in small.files.items():
            pieces: Tensors = {}
            for target in targets:
                group = self._groups[target].targets
                if target != group[0]:
                    continue  # made together with that one
                made = self._apart({name: _empty(tensors[name]) for name in group})
                pieces |= made
                origin |= dict.fromkeys(made, target)
            inside[file] = {name: _what(tensor) for name, tensor in pieces.items()}
            files[file] = list(pieces)
            content |= inside[file]

        def pieces_of(name: str) -> Tensors:
            group = self._groups[origin[name]].targets
            return self._apart({each: tensors[each] for each in group})

        unfinished.write(
            "apart",
            digest,
            unfinished.folder,
            list(files),
            lambda path, file: write_shard(path, inside[file], _Made(pieces_of)),
        )
        write_index(unfinished.folder, files, content)

    def _joined(self, group: _Group, tensors: Mapping[str, Tensor]) -> Tensors:
        if group.converter is None:
            return {group.key: tensors[group.sources[0][0]]}
        converter = deepcopy(group.converter)
        for name, pattern in group.sources:
            converter.add_tensor(group.key, name, pattern, tensors[name])
        made = converter.convert(group.key, model=self._model, config=self._model.config)
        return {n: each[0] if isinstance(each, list) else each for n, each in made.items()}

    def _apart(self, tensors: Tensors) -> Tensors:
        from transformers.core_model_loading import revert_weight_conversion

        made: Tensors = revert_weight_conversion(self._model, tensors)
        return made

    def _expect_the_way_back(self, group: _Group, made: Tensors, meta: Tensors) -> None:
        """Refuse files that would be written otherwise than they are."""
        try:
            back = {name: _what(tensor) for name, tensor in self._apart(made).items()}
            would = f"would save as {next(iter(back))!r}"
        except Exception as error:  # of converters that are not ours
            back, would = {}, f"cannot save so again ({error})"
        if back != {name: _what(meta[name]) for name, _ in group.sources}:
            raise ConfigError(
                f"The files hold {group.sources[0][0]!r}, which transformers loads as "
                f"{group.targets[0]!r} and {would}. Load the model with from_pretrained, save it "
                "with save_pretrained, and give that folder; or use shrink in memory."
            )


class JoinedShards(Shards):
    """What a model is made of: tensors of the files, and those that were put together of some."""

    def __init__(
        self, conversion: Conversion, shards: Shards, folder: Path, joined: dict[str, list[str]]
    ) -> None:
        self.folder, self.files = folder, conversion.files
        self._conversion, self._shards, self._in_folder = conversion, shards, joined

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor by the model's name; nothing is read yet."""
        as_they_are = dict(self._shards)
        for file, targets in self.files.items():
            mapped = self._mapped(file) if file in self._in_folder else {}
            for name in targets:
                if name in mapped:
                    yield name, mapped[name]
                else:
                    yield name, as_they_are[self._conversion.source_of(name)]

    def state(self) -> list[tuple[str, int, int]]:
        """What tells this content from another: that of the files it is made of."""
        return self._shards.state()


class _Made:
    """Tensors by name, where several are made at once: only the last made are kept."""

    def __init__(self, make: Callable[[str], Tensors]) -> None:
        self._make = make
        self._here: Tensors = {}

    def __call__(self, name: str) -> Tensor:
        if name not in self._here:
            self._here = {}
            self._here = dict(self._make(name))
        return self._here.pop(name)


def conversion_of(model: nn.Module, shards: Shards) -> Conversion | None:
    """How transformers loads these files into a model; None where it takes them as they are."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )
    except ImportError:  # an older release, which has none
        return None
    made: Any = model
    transforms = get_model_conversion_mapping(made)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    known = {pattern: each for each in converters for pattern in each.source_patterns}
    groups: dict[str, _Group] = {}
    names = sorted((name for name, _ in shards), key=dot_natural_key)
    there, prefix = made.state_dict(), getattr(made, "base_model_prefix", None) or None
    for name in names:
        key, pattern = rename_source_key(name, renamings, converters, prefix, there)
        if pattern is None:
            groups[key] = _Group(None, key, [(name, name)])
        else:
            group = groups.setdefault(key, _Group(known[pattern], key))
            group.sources.append((name, pattern))
    if all(
        group.converter is None and group.key == group.sources[0][0] for group in groups.values()
    ):
        return None
    made._weight_conversions = transforms
    return Conversion(model, shards, list(groups.values()))


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def _what(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...]]:
    return tensor.dtype, tuple(tensor.shape)
