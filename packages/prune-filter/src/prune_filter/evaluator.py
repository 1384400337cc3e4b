"""A user's training and evaluation in one object, as NNI 2.9 and 2.10 wanted them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn

from prune_core import ConfigError

__all__ = ["TorchEvaluator"]


class TorchEvaluator:
    """Holds how a model is trained and evaluated.

    A schedule trains with it in each iteration and scores with it, a criterion gathers its data
    with it, and both take an input of the model from it where they need one. New code needs none:
    a pruner takes `calibrate=`, a function of the model alone, and a schedule `finetune` and
    `evaluate`. Scripts written for the predecessor keep theirs.

    Args:
        training_func: Called as `training_func(model, optimizers, criterion, lr_schedulers,
            max_steps, max_epochs)`.
        optimizers: The optimizer, or several; any optimizer of the model's parameters will do.
        criterion: The loss function.
        lr_schedulers: Handed on to the function.
        dummy_input: An input of the model; pruners that need one take it from here.
        evaluating_func: Takes the model and returns its score, or a tuple or dict that begins with
            it. The evaluator itself can then be called with a model wherever an `evaluator` is
            wanted.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import TaylorFOWeightPruner, TorchEvaluator
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3))
        >>> def train(model, optimizer, criterion, schedulers, max_steps, max_epochs):
        ...     for _ in range(max_steps):
        ...         criterion(model(torch.randn(2, 3, 8, 8))).backward()
        >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
        >>> evaluator = TorchEvaluator(train, optimizer, lambda x: x.square().mean())
        >>> rules = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
        >>> _, masks = TaylorFOWeightPruner(model, rules, evaluator, 3).compress()
        >>> int(masks["0"]["bias"].sum())
        2
    """

    def __init__(
        self,
        training_func: Callable[..., Any],
        optimizers: Any,
        criterion: Callable[..., Any],
        lr_schedulers: Any = None,
        dummy_input: Any = None,
        evaluating_func: Callable[..., Any] | None = None,
    ) -> None:
        self.training_func, self.optimizers, self.criterion = training_func, optimizers, criterion
        self.lr_schedulers, self.dummy_input = lr_schedulers, dummy_input
        self.evaluating_func = evaluating_func
        self._begun = [deepcopy(part.state_dict()) for part in self._stateful]

    def train(
        self, model: nn.Module, max_steps: int | None = None, max_epochs: int | None = None
    ) -> None:
        """Train for so many steps or epochs.

        Args:
            model: The model to train.
            max_steps: After how many steps to stop, or None.
            max_epochs: After how many epochs to stop, or None.
        """
        self.training_func(
            model, self.optimizers, self.criterion, self.lr_schedulers, max_steps, max_epochs
        )

    def finetune(self, model: nn.Module) -> None:
        """Train as long as `training_func` does by itself, as a schedule does in each iteration.

        Optimizers and learning-rate schedulers begin as they were when this evaluator was made:
        every iteration trains alike, and none with what the one before left of a learning rate.

        Args:
            model: The model to train.
        """
        for part, state in zip(self._stateful, self._begun, strict=True):
            part.load_state_dict(deepcopy(state))
        self.train(model)

    @property
    def _stateful(self) -> list[Any]:
        parts: list[Any] = []
        for given in (self.optimizers, self.lr_schedulers):
            parts += given if isinstance(given, list | tuple) else [given]
        return [part for part in parts if hasattr(part, "load_state_dict")]

    def __call__(self, model: nn.Module) -> Any:
        """Return the score of a model."""
        if self.evaluating_func is None:
            raise ConfigError(
                "TorchEvaluator was made without evaluating_func=, so it cannot say how good a "
                "model is."
            )
        score = self.evaluating_func(model)
        if isinstance(score, dict):
            score = score.get("default", next(iter(score.values())))
        return score[0] if isinstance(score, tuple | list) and score else score
