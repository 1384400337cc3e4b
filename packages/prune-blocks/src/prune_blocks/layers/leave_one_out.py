"""Blocks and branches by how much the loss grows without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prune_blocks.layers.loss import loss_of
from prune_blocks.layers.pruner import BlockPruner
from prune_core.callables import UserFunction
from prune_core.errors import ConfigError
from prune_core.masking import bare
from prune_core.progress import Task
from prune_speedup.torch import Block, left_out

__all__ = ["LeaveOneOutPruner"]


class LeaveOneOutPruner(BlockPruner):
    """Takes out the blocks without which the loss grows least.

    `score(b) = loss(model without b) − loss(model)`, on the calibration data. It takes one run of
    the data for each block; with `greedy=True`, one for each block and each that goes, and then
    knows which blocks can be missed together.

    Args:
        model: The model; it gets fewer layers in place.
        example_inputs: An input of the model.
        evaluate: A function of the model that returns its loss, a number that is smaller where the
            model is better. Unless given, what the model returns as its loss on the data: models of
            transformers do where they are given `labels`.
        greedy: Rank the others anew after each block that goes.
        **options: `count=`, `sparsity=` or `target=`, and what else `BlockPruner` takes.
    """

    needs_labels = True

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        evaluate: Callable[..., Any] | None = None,
        greedy: bool = False,
        calibrate: Callable[..., Any] | None = None,
        data: Iterable[Any] | None = None,
        count: int | None = None,
        sparsity: float | None = None,
        target: Mapping[str, float] | None = None,
        targets: str | Sequence[str] = "default",
        exclude: str | Sequence[str] = (),
        verify: bool = True,
        verify_inputs: Sequence[Any] = (),
    ) -> None:
        if evaluate is not None and (data is not None or calibrate is not None):
            raise ConfigError(
                "evaluate is given, and data or calibrate as well: one says the loss."
            )
        self._evaluate = None if evaluate is None else UserFunction(evaluate, "evaluate")
        self._greedy = greedy
        super().__init__(
            model,
            example_inputs,
            calibrate=calibrate,
            data=data,
            count=count,
            sparsity=sparsity,
            target=target,
            targets=targets,
            exclude=exclude,
            verify=verify,
            verify_inputs=verify_inputs,
        )

    def choose(self) -> list[Block]:
        """Return the blocks that can be missed best."""
        with bare(self.model) as model, torch.no_grad():
            if not self.scores:
                self._score(model)
            return self._one_by_one(model) if self._greedy else self.lowest()

    def _score(self, model: nn.Module) -> None:
        whole = self._loss(model)
        with Task(type(self).__name__, len(self.candidates), "block") as task:
            for block in self.candidates:
                with left_out(model, self.found, [block]):
                    self.scores[block.name] = self._loss(model) - whole
                task.advance()

    def _one_by_one(self, model: nn.Module) -> list[Block]:
        lowest = self.lowest  # which refuses scores that are no numbers
        gone = lowest()[:1]
        while not self.amount.met_by(gone):
            others = [b for b in self.candidates if b not in gone and self.leaves_one([*gone, b])]
            if not others:
                raise self.amount.refuse(gone, len(self.candidates))
            losses: dict[str, float] = {}
            for block in others:
                with left_out(model, self.found, [*gone, block]):
                    losses[block.name] = self._loss(model)
            gone.append(min(others, key=lambda b: losses[b.name]))
        return gone

    def _checked(self, calibrate: Callable[..., Any] | None) -> UserFunction | None:
        if calibrate is None and self._evaluate is None:
            raise ConfigError(
                "LeaveOneOutPruner compares losses, and was given nothing to measure one on: say "
                "evaluate=, a function of the model that returns its loss, or data=[...], inputs "
                "with which the model returns a loss (of transformers: with labels)."
            )
        return None if calibrate is None else UserFunction(calibrate, "calibrate")

    def _loss(self, model: nn.Module) -> float:
        return loss_of(model, self._evaluate, self.run_calibration)
