"""Find a lottery ticket: train, prune, rewind, and train again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from prune_core.callables import check_takes_model
from prune_core.config import load_config
from prune_core.errors import PruneWarning
from prune_core.events import emit
from prune_core.progress import Task
from prune_core.rounds import sparsity_after, take_rounds
from prune_lottery.callables import Evaluate, Train, score_of, trainer_of
from prune_lottery.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from prune_lottery.criterion import Algorithm, Criterion, find_algorithm
from prune_lottery.early_bird import EarlyBird, MaskWatch
from prune_lottery.ema import wrap_average
from prune_lottery.history import MaskHistory
from prune_lottery.restore import FinishedRounds
from prune_lottery.result import LotteryResult, RoundRecord, best_of
from prune_lottery.rewind import Rewind
from prune_lottery.rewind_points import RewindPoints
from prune_lottery.round import Round
from prune_lottery.training import State, Stateful, Training

if TYPE_CHECKING:
    from prune_core.speedup import SpeedupReport

__all__ = ["ConfigList", "LotteryTicket"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]


class LotteryTicket(FinishedRounds):
    """Finds a lottery ticket: trains a network, prunes it, rewinds the rest, and trains again.

    Round `t` of `n` prunes until the sparsity is `1 - (1 - P)^(t / n)`, each round the same share
    of what survives. Round 0 trains the dense network.

    Frankle and Carbin, The Lottery Ticket Hypothesis, https://arxiv.org/abs/1803.03635

    Args:
        model: The model with its initial weights. It is wrapped in place.
        config_list: The rules, with the sparsities of the last round.
        rounds: How many times to prune; or `prune_iterations` in the config.
        rewind: Where the surviving weights begin a round: `"init"`, `"early:500"`,
            `"learning_rate"`, `"none"`, `"reinit"`, `"sign:constant"` and others (`REWINDS`).
        pruning_algorithm: What decides which weights go: the name of a registered pruner, or a
            class.
        pruning_params: Further arguments of that pruner, such as `{"mode": "global"}` to rank all
            layers together.
        optimizer: The optimizer, if it lives longer than a round; its state is rewound too.
        lr_scheduler: The scheduler of that optimizer.
        ema: Averaged weights, such as an `AveragedModel`.
        generators: Generators that the data loading draws from.
        also: More things with `state_dict()` and `load_state_dict()`, by name.
        rewind_random: Whether each round draws the same random numbers, and so sees the same data
            in the same order.
        reinitialise: Called with the model to give it new initial values, for models some of whose
            modules have no `reset_parameters()`.
        early_bird: Ends each training but the last as soon as the masks have settled.
        tolerance: How far below the dense score a ticket may stay and still win.
        seed: For what is drawn by the rewinds that draw.
        checkpoint: A file that is written after each round. A run that finds it goes on there.

    Example:
        ```python
        lottery = LotteryTicket(model, [{"op_types": ["Linear"], "sparsity": 0.9}], rounds=10)
        result = lottery.run(train=train, evaluate=accuracy)
        print(result)
        ```
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        *,
        rounds: int | None = None,
        rewind: str = "init",
        pruning_algorithm: Algorithm = "level",
        pruning_params: Mapping[str, Any] | None = None,
        optimizer: Optimizer | None = None,
        lr_scheduler: Stateful | None = None,
        ema: nn.Module | Stateful | None = None,
        generators: Sequence[torch.Generator] = (),
        also: Mapping[str, Stateful] | None = None,
        rewind_random: bool = True,
        reinitialise: Callable[[nn.Module], object] | None = None,
        early_bird: EarlyBird | None = None,
        tolerance: float = 0.0,
        seed: int = 0,
        checkpoint: str | PathLike[str] | None = None,
    ) -> None:
        self.rewind = Rewind.parse(rewind)
        algorithm = find_algorithm(pruning_algorithm)
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        self.config_list = config_list
        rules, self.rounds = take_rounds(config_list, rounds, getattr(algorithm, "config_keys", ()))
        self.training = Training(
            model,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            ema=ema,
            generators=generators,
            also=also,
        )
        self.rewind_points = RewindPoints(self.training, rewind_random, reinitialise)
        self.early_bird, self.tolerance, self.seed = early_bird, tolerance, seed
        self.checkpoint = checkpoint
        self.records: list[RoundRecord] = []
        self.controls: dict[str, list[RoundRecord]] = {}
        self.history = MaskHistory()
        self._trained: dict[int, State] = {}
        # Last, because it wraps the model: whatever fails before leaves that as it was.
        self.criterion = Criterion(model, rules, algorithm, pruning_params or {})
        self._averaged = wrap_average(ema, self.criterion.wrappers)

    # --- the loop -------------------------------------------------------------------------

    def run(
        self,
        *,
        train: Train,
        evaluate: Evaluate | None = None,
        after_round: Callable[[int], object] | None = None,
    ) -> LotteryResult:
        """Run all rounds that are not finished yet.

        Ctrl-C ends the run with the best round so far in the model. When anything else is raised,
        the model goes back to the last finished round, and `run()` can be called again.

        Args:
            train: `train(model)` or `train(model, this_round)`; the latter knows from
                `for step in this_round.steps(total)` where to begin. Optional parameters keep their
                defaults. What it returns is kept as the round's `log`, so it must be plain data.
            evaluate: `evaluate(model)`, returns a number; the larger, the better.
            after_round: Called with the number of each round that has been finished, while the
                model holds it.

        Returns:
            The finished rounds. The model holds the last one, trained, under its masks.
        """
        trainer = trainer_of(train, self._needs_steps())
        check_takes_model("evaluate", evaluate)
        self._wrap()
        self._resume()
        interrupted, rounds = False, self.rounds + 1
        try:
            with Task("LotteryTicket", rounds, "round", self._plan(), announce=True) as task:
                for record in self.records:
                    task.advance(_said(record), replayed=True)
                for index in range(len(self.records), rounds):
                    this_round = self.begin(index)
                    task.say(f"sparsity {this_round.sparsity:.1%}, training")
                    with self.criterion.following():
                        log = trainer(self.model, this_round)
                    # Says so now if the training was too short for the rewind.
                    self.rewind_points.at(self.rewind)
                    score = score_of(evaluate, self.model)
                    self._finish(self.record(index, score, log, this_round.stopped))
                    if after_round is not None:
                        after_round(index)
                    task.advance(_said(self.records[-1]))
        except KeyboardInterrupt:
            if not self.records:
                self.put_back()
                raise
            self.restore(best_of(self.records, self.tolerance).index)
            interrupted = True
        except BaseException:
            self.put_back()
            raise
        return LotteryResult(tuple(self.records), interrupted, self.tolerance)

    def _plan(self) -> str:
        """Describe the goal of the rounds."""
        final = max(self.criterion.final.values(), default=0.0)
        return f"to a sparsity of {final:.1%} in {len(self.wrappers)} layers"

    def begin(self, index: int) -> Round:
        """Prune for a round, and rewind. The model must hold the round before, trained.

        Args:
            index: The number of the round.
        """
        if index == 0:
            self.restart()
        else:
            wanted = {
                n: sparsity_after(index, self.rounds, p) for n, p in self.criterion.final.items()
            }
            returning = self.history.record(index, self.criterion.masks(wanted))
            if returning:
                warnings.warn(
                    f"{type(self.criterion.pruner).__name__} would bring {returning} pruned "
                    "values back; in a lottery they stay pruned, so the sparsity is higher than "
                    "asked for.",
                    PruneWarning,
                    stacklevel=2,
                )
            self.ticket(index)
            emit("prune_masks_made", pruner=self.criterion.pruner, masks=self.history.masks(index))
        watch = MaskWatch(self.early_bird) if self.early_bird and index < self.rounds else None
        return self.round_at(
            index,
            self.rewind.step if index else 0,
            lambda step: self._at_step(index, step, watch),
        )

    def round_at(
        self, index: int, start: int, at_step: Callable[[int], bool] = lambda step: False
    ) -> Round:
        """Return the round for the current masks.

        Args:
            index: The number of the round.
            start: The step that it begins at.
            at_step: Called with the number of each step; whether the training is to stop there.
        """
        return Round(index, self._sparsity(), start, at_step)

    def _at_step(self, index: int, step: int, watch: MaskWatch | None) -> bool:
        """Called when `step` steps of a training are complete; return whether to stop."""
        if index == 0 and step == self.rewind.step and step and self.rewind_points.early is None:
            self.rewind_points.early = self.training.take()
        if watch is None or step == 0:
            return False
        wanted = {
            n: sparsity_after(index + 1, self.rounds, p) for n, p in self.criterion.final.items()
        }
        return watch.settled(self.criterion.masks(wanted))

    def _finish(self, record: RoundRecord) -> None:
        self.records.append(record)
        self._trained[record.index] = self.training.take()
        kept = {record.index, best_of(self.records, self.tolerance).index}
        self._trained = {index: state for index, state in self._trained.items() if index in kept}
        self.save()

    def shrink(self, example_inputs: Any) -> SpeedupReport:
        """Remove the masked channels, and verify that the output stays the same.

        The model is unwrapped and gets smaller layers, so this is the last step: rounds cannot be
        restored afterwards. Single weights leave no layer smaller; whole channels do.

        Args:
            example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.
        """
        # Only this last step needs the engine, which takes its time to import.
        from prune_core.speedup import shrink

        masks = {name: wrapper.masks for name, wrapper in self.wrappers.items()}
        return shrink(self.unwrap(), example_inputs, masks)

    # --- what is kept -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the finished rounds and all that the next ones depend on.

        Tensors and plain data; `torch.load(weights_only=True)` reads it back. The states of the
        model in it are not copied, and never changed by this object either.
        """
        return {
            "settings": self._settings(),
            "initial": self.rewind_points.initial,
            "early": self.rewind_points.early,
            "trained": dict(self._trained),
            "pruned_in": {
                m: {n: t.clone() for n, t in ts.items()} for m, ts in self.history.pruned_in.items()
            },
            "records": [record.as_dict() for record in self.records],
            "controls": {k: [r.as_dict() for r in rs] for k, rs in self.controls.items()},
            "gathered": self.criterion.gathered,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict()` returned, including the model.

        Args:
            state: What `state_dict()` returned.

        Raises:
            CheckpointError: When it was made with other settings.
        """
        for name, now in self._settings().items():
            then = state["settings"].get(name)
            if then != now:
                raise CheckpointError(
                    f"The checkpoint was made with {name}={then!r}, and this lottery has "
                    f"{name}={now!r}. Use the same settings, or another checkpoint file."
                )
        self.rewind_points.initial, self.rewind_points.early = state["initial"], state["early"]
        self.criterion.gathered = state.get("gathered", {})
        self._trained = dict(state["trained"])
        self.history = MaskHistory(
            {m: {n: t.clone() for n, t in ts.items()} for m, ts in state["pruned_in"].items()}
        )
        self.records = [RoundRecord(**record) for record in state["records"]]
        self.controls = {k: [RoundRecord(**r) for r in rs] for k, rs in state["controls"].items()}
        self.put_back()

    def save(self) -> None:
        """Write the checkpoint, if there is to be one."""
        if self.checkpoint is not None:
            check = len(self.records) <= 1  # by then everything has been in it once
            write_checkpoint(self.checkpoint, self.state_dict(), check=check)

    def _resume(self) -> None:
        if self.checkpoint is None or self.records:
            return
        if Path(self.checkpoint).exists():
            self.load_state_dict(read_checkpoint(self.checkpoint))
        else:
            self.save()

    def _settings(self) -> dict[str, Any]:
        rule = self.early_bird
        return {
            "rounds": self.rounds,
            "rewind": self.rewind.spec,
            "algorithm": type(self.criterion.pruner).__name__,
            "sparsity": dict(self.criterion.final),
            "rewind_random": "random" in self.rewind_points.parts,
            "early_bird": None if rule is None else [rule.distance, rule.window],
            "tolerance": float(self.tolerance),
            "seed": self.seed,
        }

    def _needs_steps(self) -> str | None:
        if self.rewind.step:
            return f"rewind={self.rewind.spec!r}"
        return None if self.early_bird is None else "early_bird"


def _said(record: RoundRecord) -> str:
    score = "" if record.score is None else f", score {record.score:.4g}"
    return f"sparsity {record.sparsity:.1%}{score}"
