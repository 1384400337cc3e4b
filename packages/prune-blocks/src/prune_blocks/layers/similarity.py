"""How alike the hidden states are that pass between the blocks of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import PruneError
from prune_speedup.torch import Block, Blocks
from prune_toolkit.calibration.watch import padding_of

__all__ = ["Cosines", "channel_axis", "directions"]


class Cosines:
    """Sums up, while it is open, the cosines between hidden states before and after blocks.

    Args:
        model: The model that will run.
        found: Its blocks.
        runs: Rows of blocks; in each, the states before each block and after the last are compared
            with each other.
        last: Look at the last token of each sample alone, as far as there are tokens.
    """

    def __init__(
        self, model: nn.Module, found: Blocks, runs: Sequence[Sequence[Block]], *, last: bool
    ) -> None:
        self._model, self._found, self._runs, self._last = model, found, runs, last
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._angles: dict[tuple[str, str], Tensor] = {}
        self._counts: dict[tuple[str, str], float] = {}
        self._states: dict[str, tuple[Tensor, Tensor]] = {}
        self._tokens: Tensor | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> Cosines:
        hooks = self._handles
        hooks.append(self._model.register_forward_pre_hook(self._begin, with_kwargs=True))
        for run in self._runs:
            for block in run:
                module = self._model.get_submodule(block.modules[-1])
                hooks.append(module.register_forward_hook(self._noting(block), with_kwargs=True))
        hooks.append(self._model.register_forward_hook(self._end))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._states = [], {}

    def cosine(self, first: Block, last: Block) -> float:
        """Return the mean cosine between what enters a block and what leaves another one."""
        return self._mean(self._sums, first, last)

    def angle(self, first: Block, last: Block) -> float:
        """Return the mean angle between them, as a share of half a turn."""
        return self._mean(self._angles, first, last)

    def _mean(self, sums: Mapping[tuple[str, str], Tensor], first: Block, last: Block) -> float:
        key = first.name, last.name
        if not self._counts.get(key):
            raise PruneError(
                f"The calibration never ran {first.name!r}, so there is nothing to rank it by."
            )
        return float(sums[key] / self._counts[key])

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._tokens, self._states = padding_of(args, kwargs), {}

    def _noting(self, block: Block) -> Any:
        seen = self._found.seen[block.modules[-1]]

        def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = kwargs[seen.name] if seen.name in kwargs else args[seen.position]
            after = output if isinstance(output, Tensor) else output[0]
            axis = channel_axis(module, before)
            self._states[block.name] = directions(before, axis), directions(after, axis)

        return note

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        for run in self._runs:
            for at, first in enumerate(run):
                for last in run[at:]:
                    if first.name in self._states and last.name in self._states:
                        self._add(first.name, last.name)
        self._states = {}

    def _add(self, first: str, last: str) -> None:
        before, after = self._states[first][0], self._states[last][1]
        if before.shape != after.shape:
            return
        cosines = (before * after).sum(-1).clamp(-1, 1)
        weights = torch.ones_like(cosines)
        if self._tokens is not None and self._tokens.shape == cosines.shape:
            weights = self._tokens.to(cosines) != 0
            weights = weights.to(cosines)
        if self._last and cosines.ndim == 2:
            weights = _last_of(weights)
        key = first, last
        self._sums[key] = self._sums.get(key, 0) + (cosines * weights).sum()
        angles = torch.arccos(cosines) / torch.pi
        self._angles[key] = self._angles.get(key, 0) + (angles * weights).sum()
        self._counts[key] = self._counts.get(key, 0.0) + float(weights.sum())


def directions(states: Tensor, axis: int) -> Tensor:
    """Return hidden states of length one, their channels along the last axis."""
    wide = states.detach().movedim(axis, -1).double()
    return nn.functional.normalize(wide, dim=-1)


def channel_axis(module: nn.Module, states: Tensor) -> int:
    """Return the axis of the channels: of an image the second, unless norms say it is the last."""
    if states.ndim < 4:
        return -1
    lengths = {len(parameter) for parameter in module.parameters() if parameter.ndim == 1}
    at_the_end = states.shape[-1] in lengths and states.shape[1] not in lengths
    return -1 if at_the_end else 1


def _last_of(weights: Tensor) -> Tensor:
    """Return weights of 1 for the last token of each sample that counts, and of 0 elsewhere."""
    places = torch.arange(weights.shape[1], device=weights.device)
    last = (weights * (places + 1)).argmax(1)
    return nn.functional.one_hot(last, weights.shape[1]).to(weights) * weights
