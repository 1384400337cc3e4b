"""`LotteryTicketPruner`: lottery tickets with the interface of NNI."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from prune_core.callables import check_takes_model
from prune_core.compat import understands
from prune_core.compressed import Compressed
from prune_core.config import Key
from prune_core.errors import ConfigError
from prune_core.evaluators import holds_training, scoring_of, training_of
from prune_core.masking import Masks, unwrap
from prune_core.progress import note
from prune_core.pruning import Pruner
from prune_core.rounds import ROUNDS_KEY
from prune_lottery.callables import Evaluate, Train, trainer_of
from prune_lottery.compat import LOTTERY
from prune_lottery.criterion import Algorithm
from prune_lottery.ticket import ConfigList, LotteryTicket
from prune_lottery.training import Stateful
from prune_toolkit.results import ResultFolder, reached_config

__all__ = ["LotteryTicketPruner"]


class LotteryTicketPruner(Pruner):
    """Iterative pruning with rewinding, in the user's own training loop or in one call.

    If `P` is the final sparsity and there are `n` rounds, each prunes `1 - (1 - P)^(1 / n)` of
    what survives. Round 0 trains the dense network, so there are `n + 1` trainings.

    Frankle and Carbin, The Lottery Ticket Hypothesis, https://arxiv.org/abs/1803.03635

    Args:
        model: The model with its initial weights, wrapped in place.
        config_list: The rules; each entry has the final `sparsity` and `prune_iterations`, the
            number of rounds, which is the same for all.
        optimizer: The optimizer, reset at the start of each round.
        lr_scheduler: The scheduler, if there is one, reset as well.
        reset_weights: Whether weights, optimizer and scheduler are reset; otherwise training
            goes on with what survives.
        pruning_algorithm: What decides which weights go: a registered name, or a class.
        pruning_params: Further arguments of that algorithm.
        total_iteration: The number of rounds, for a config without `prune_iterations`.
        finetune: Takes the model and trains it. If given, `compress()` runs all rounds.
        evaluate: Takes the model and returns its score. One that trains as well, such as
            `prune_filter.TorchEvaluator`, is also `finetune` unless there is another.
        log_dir: A folder for the result of `compress()`.
        keep_intermediate_result: Whether it gets the results of all rounds.
        speedup: Whether `get_best_result()` returns a model that has been made small.
        dummy_input: An input of the model, for `speedup`.

    Example:
        ```python
        config_list = [{"prune_iterations": 5, "sparsity": 0.8, "op_types": ["default"]}]
        pruner = LotteryTicketPruner(model, config_list, optimizer)
        pruner.compress()
        for _ in pruner.get_prune_iterations():
            pruner.prune_iteration_start()
            for epoch in range(epochs):
                train(model, optimizer)
        ```
    """

    config_keys: ClassVar[tuple[str | Key, ...]] = (ROUNDS_KEY,)
    _lottery: LotteryTicket

    @understands(LOTTERY)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        optimizer: Optimizer | None = None,
        lr_scheduler: Stateful | None = None,
        reset_weights: bool = True,
        *,
        pruning_algorithm: Algorithm = "level",
        pruning_params: Mapping[str, Any] | None = None,
        total_iteration: int | None = None,
        finetune: Train | None = None,
        evaluate: Evaluate | None = None,
        log_dir: str | PathLike[str] | None = None,
        keep_intermediate_result: bool = False,
        speedup: bool = False,
        dummy_input: Any = None,
    ) -> None:
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.reset_weights = reset_weights
        self.pruning_algorithm, self.pruning_params = pruning_algorithm, pruning_params
        self.total_iteration = total_iteration
        check_takes_model("evaluate", evaluate)
        both = next(filter(holds_training, (finetune, evaluate)), None)
        self.finetuner: Train | None = training_of(finetune) or finetune or training_of(evaluate)
        self.evaluator: Evaluate | None = scoring_of(evaluate) or scoring_of(both)
        if self.finetuner is not None:
            trainer_of(self.finetuner, None)
        if dummy_input is None:
            dummy_input = getattr(both, "dummy_input", None)
        self.speedup, self.dummy_input = speedup, dummy_input
        if speedup and dummy_input is None:
            raise ConfigError(
                "speedup is True and dummy_input is missing: give an input of the model, with "
                "which it is traced."
            )
        if self.reset_weights and optimizer is None and self.finetuner is None:
            raise ConfigError(
                "optimizer is missing; its state has to be reset with the weights. Pass the "
                "optimizer that trains the model, or reset_weights=False, or finetune= where "
                "each round makes its own optimizer."
            )
        self._folder = ResultFolder(log_dir, keep_intermediate_result)
        super().__init__(model, config_list)

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model, in its current state, or with another config."""
        if self.is_wrapped:
            self._lottery.criterion.stop()
            self.unwrap()
        self._lottery = LotteryTicket(
            model,
            config_list,
            rounds=self.total_iteration,
            rewind="init" if self.reset_weights else "none",
            pruning_algorithm=self.pruning_algorithm,
            pruning_params=self.pruning_params,
            optimizer=self.optimizer,
            lr_scheduler=self.lr_scheduler,
            rewind_random=False,
        )
        self.bound_model = model
        self.config_list = self._lottery.config_list
        # The base pruner has wrapped the model; these are its wrappers, and now ours.
        self._wrappers = self._lottery.wrappers
        self.prune_iterations = self._lottery.rounds
        self.curr_prune_iteration: int | None = None

    # --- a loop of the user's -----------------------------------------------------------------

    def get_prune_iterations(self) -> range:
        """Return the numbers of the rounds: 0 for the dense network, then 1 to `n`."""
        return range(self.prune_iterations + 1)

    def prune_iteration_start(self) -> None:
        """Begin a round: prune the trained weights, and rewind the rest."""
        index = 0 if self.curr_prune_iteration is None else self.curr_prune_iteration + 1
        if index > self.prune_iterations:
            raise ConfigError(
                f"All {self.prune_iterations} rounds have begun already; loop over "
                "get_prune_iterations(), or start anew with reset(model, config_list)."
            )
        this_round = self._lottery.begin(index)
        if index < self.prune_iterations:
            self._lottery.criterion.follow()
        else:
            self._lottery.criterion.stop()
        self.curr_prune_iteration = index
        note(
            type(self).__name__,
            f"round {index + 1} of {self.prune_iterations + 1}, sparsity {this_round.sparsity:.1%}",
            always=True,
        )

    # --- all rounds in one call ----------------------------------------------------------------

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Prepare, or run all rounds.

        Args:
            example_inputs: An input of the model. With it, the final masks also cover what comes
                after a masked channel, such as the bias of a normalisation.

        Returns:
            The wrapped model and the masks: those after all rounds where there is `finetune`, and
            those to begin with where the rounds are a loop of the user's.
        """
        if self.finetuner is None:
            return Compressed(self.bound_model, self.masks)
        result = self._lottery.run(
            train=self.finetuner,
            evaluate=self.evaluator,
            after_round=lambda number: self._folder.add_round(number, self, self.reached_config),
        )
        self.curr_prune_iteration = result.rounds[-1].index
        if example_inputs is not None:
            self.close_masks(example_inputs)
        self._folder.add_result(self, self.reached_config)
        return Compressed(self.bound_model, self.masks)

    @property
    def reached_config(self) -> list[dict[str, Any]]:
        """What is in force, as a `config_list` with an entry for each layer."""
        return reached_config(self._wrappers)

    def get_best_result(
        self,
    ) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Return round, model, masks, score and config of the last round of `compress()`.

        The model is a copy without wrappers: zeros where masked, or made small, with the masks
        that are left, if `speedup` was asked for.
        """
        if not self._lottery.records:
            raise ConfigError(
                "There is no result yet; call compress() first, with finetune= given to the pruner."
            )
        last = self._lottery.records[-1]
        self._lottery.restore(last.index)
        masks = self.close_masks(self.dummy_input) if self.speedup else self.masks
        model = unwrap(copy.deepcopy(self.bound_model))
        if self.speedup:
            from prune_core.speedup import shrink  # tracing is imported when it is used

            masks = shrink(model, self.dummy_input, masks).masks
        return last.index, model, masks, last.score, self.reached_config

    # --- what is kept ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything that is needed to resume, as tensors and plain data."""
        return {
            "lottery": self._lottery.state_dict(),
            "iteration": self.curr_prune_iteration,
            "training": self._lottery.training.take(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict()` returned: model, masks, optimizer and scheduler too.

        Args:
            state: What `state_dict()` returned.
        """
        lottery, index = self._lottery, state["iteration"]
        lottery.load_state_dict(state["lottery"])
        if index is not None:
            pruned_in = state["lottery"]["pruned_in"]
            lottery.history.pruned_in = {
                m: {n: t.clone() for n, t in tensors.items()} for m, tensors in pruned_in.items()
            }
            lottery.put_masks(lottery.history.masks(index))
        lottery.training.put(state["training"])
        self.curr_prune_iteration = index
