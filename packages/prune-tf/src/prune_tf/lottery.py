"""Lottery tickets: prune what was trained, put the rest back to where it began, train again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, ClassVar

import keras

from prune_core.callables import check_takes_model
from prune_core.compressed import Compressed
from prune_core.config import load_config
from prune_core.errors import ConfigError
from prune_core.options import ChecksOptions, check_flags
from prune_core.progress import note
from prune_core.rounds import sparsity_after, take_rounds
from prune_tf.gradual import class_of
from prune_tf.masks import Masks, hold_masks
from prune_tf.no_callback import NoCallback
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.variables import Kept, of_optimizer

__all__ = ["LotteryTicketPruner"]


class LotteryTicketPruner(NoCallback, metaclass=ChecksOptions):
    """Iterative pruning with rewinding, in the user's own training loop or in one call.

    If `P` is the final sparsity and there are `n` rounds, each prunes `1 - (1 - P)^(1 / n)` of
    what survives. Round 0 trains the dense network, so there are `n + 1` trainings.

    Frankle and Carbin, The Lottery Ticket Hypothesis, https://arxiv.org/abs/1803.03635

    Args:
        model: The model with its initial weights, masked in place.
        config_list: The rules; each entry has the final `sparsity` and `prune_iterations`, the
            number of rounds, which is the same for all.
        reset_weights: Whether weights and the optimizer of a compiled model are reset; otherwise
            training goes on with what survives.
        pruning_algorithm: What decides which weights go: a registered name, or a class.
        pruning_params: Further arguments of that algorithm.
        total_iteration: The number of rounds, for a config without `prune_iterations`.
        finetune: Takes the model and trains it. If given, `compress()` runs all rounds.
        evaluate: Takes the model and returns its score, after each of these trainings.

    Attributes:
        pruner: The pruner that makes the masks.
        history: What each round of `compress()` came to: its number, sparsity and score.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import LotteryTicketPruner
        >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(10)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((8, 4)), np.ones((8, 10))
        >>> pruner = LotteryTicketPruner(
        ...     model,
        ...     [{"sparsity": 0.75, "op_types": ["Dense"], "prune_iterations": 2}],
        ...     finetune=lambda model: model.fit(x, y, verbose=0),
        ... )
        >>> model, masks = pruner.compress()
        >>> [each["sparsity"] for each in pruner.history]
        [0.0, 0.5, 0.75]
    """

    framework: ClassVar[str] = "keras"
    instead: ClassVar[str] = (
        ": each of its rounds is a training of its own. Give it finetune=..., or call "
        "prune_iteration_start() before each."
    )

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        reset_weights: bool = True,
        *,
        pruning_algorithm: str | type[Pruner] = "level",
        pruning_params: Mapping[str, Any] | None = None,
        total_iteration: int | None = None,
        finetune: Callable[[keras.Model], Any] | None = None,
        evaluate: Callable[[keras.Model], float] | None = None,
    ) -> None:
        check_flags(reset_weights=reset_weights)
        check_takes_model("finetune", finetune)
        check_takes_model("evaluate", evaluate)
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        kind = class_of(pruning_algorithm)
        rules, self.prune_iterations = take_rounds(config_list, total_iteration, kind.config_keys)
        self.reset_weights, self.finetuner, self.evaluator = reset_weights, finetune, evaluate
        self.pruner = kind(model, rules, **dict(pruning_params or {}))
        self.history: list[dict[str, Any]] = []
        self.curr_prune_iteration: int | None = None
        self._weights = Kept(self.pruner.bound_model.weights)

    def get_prune_iterations(self) -> range:
        """Return the numbers of the rounds: 0 for the dense network, then 1 to `n`."""
        return range(self.prune_iterations + 1)

    def prune_iteration_start(self) -> None:
        """Begin a round: prune the trained weights, and put the rest back to where it began."""
        index = 0 if self.curr_prune_iteration is None else self.curr_prune_iteration + 1
        if index > self.prune_iterations:
            raise ConfigError(
                f"All {self.prune_iterations} rounds have begun already; loop over "
                "get_prune_iterations(), or make another pruner to start anew."
            )
        model = self.pruner.bound_model
        if index:
            self.pruner.compress_to(
                lambda final: sparsity_after(index, self.prune_iterations, final)
            )
        else:
            self._optimizer = Kept(of_optimizer(model))
        if index and self.reset_weights:
            self._weights.restore()
            self._optimizer.restore()
            hold_masks(model)
        self.curr_prune_iteration = index
        reached = max(self.pruner.sparsity().values(), default=0.0)
        note(
            type(self).__name__,
            f"round {index + 1} of {self.prune_iterations + 1}, sparsity {reached:.1%}",
            always=True,
        )

    def compress(self) -> Compressed[keras.Model, Masks]:
        """Prepare, or run all rounds where there is `finetune`; return the model and the masks."""
        model = self.pruner.bound_model
        if self.finetuner is not None:
            for index in self.get_prune_iterations():
                self.prune_iteration_start()
                self.finetuner(model)
                hold_masks(model)
                score = None if self.evaluator is None else float(self.evaluator(model))
                reached = max(self.pruner.sparsity().values(), default=0.0)
                self.history.append({"round": index, "sparsity": reached, "score": score})
        return Compressed(model, self.pruner.masks)

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return self.pruner.unwrap()
