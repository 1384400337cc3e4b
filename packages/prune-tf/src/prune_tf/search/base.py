"""The base class of searches for the sparsity of each layer of a Keras model."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.amount import DEFAULT_CAP
from prune_core.callables import check_takes_model
from prune_core.compressed import Compressed
from prune_core.config import load_config
from prune_core.errors import ConfigError, PruneError, did_you_mean, shown, warn
from prune_core.options import ChecksOptions
from prune_core.progress import Task
from prune_core.scores import number_from
from prune_core.seed import as_seed
from prune_speedup.sparsities.pieces import Piece
from prune_speedup.sparsities.plans import DeadEndError, Plan, Plans, Sparsities
from prune_speedup.sparsities.trials_file import (
    StateFile,
    check_same_plan,
    digest_of,
    run_of,
    weights_ahead,
)
from prune_speedup.sparsities.weights import Budget, WeightBudget
from prune_tf.gradual import class_of
from prune_tf.masks import Masks, apply_masks, masks_of, unwrap
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.search.start import Start
from prune_tf.seeds import seeded
from prune_tf.variables import Kept

__all__ = ["SearchPruner"]

SIGNS = {"maximize": 1.0, "minimize": -1.0}


class SearchPruner(metaclass=ChecksOptions):
    """Searches for the sparsity of each layer that scores best in the user's `evaluate`.

    A subclass yields the plans to try from `plans()`, and is sent the score of each, higher being
    better. The plans may depend on the seed and on the scores so far, and on nothing else: a search
    that starts again is sent the scores that are known already.

    Where `evaluate` or `finetune` raises, the model is as it was before the search.

    Args:
        model: The model, masked in place by `compress()`.
        config_list: The rules. The sparsity of an entry is that of all its layers together.
        evaluate: Takes the model and returns its score.
        optimize_mode: `"maximize"` or `"minimize"`.
        finetune: Takes the model and trains it.
        pruning_algorithm: A registered pruner, or a class.
        pruning_params: Further arguments of the pruning algorithm.
        calibrate: Runs the model on some batches, for data-driven criteria.
        experiment_data_dir: A folder for the trials, from which the search goes on.
        seed: Seed of the random numbers of the search.
        checkpoint: A JSON file for the trials instead.

    Attributes:
        history: The trials: number, sparsity of each layer, and score.
        best: The plan that the search has ended with.
        best_score: Its score.
    """

    framework: ClassVar[str] = "keras"
    # A layer that loses everything cuts the network in two, so it takes an explicit cap of 1.
    default_cap: ClassVar[float] = DEFAULT_CAP
    # Trials from this one on are fine-tuned; None where a search trains between its rounds.
    first_tuned: ClassVar[int | None] = 1

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        evaluate: Callable[[keras.Model], Any] | None,
        optimize_mode: str = "maximize",
        *,
        finetune: Callable[[keras.Model], Any] | None = None,
        pruning_algorithm: str | type[Pruner] = "level",
        pruning_params: Mapping[str, Any] | None = None,
        calibrate: Callable[[keras.Model], Any] | None = None,
        experiment_data_dir: str | PathLike[str] | None = None,
        seed: int = 0,
        checkpoint: str | PathLike[str] | None = None,
    ) -> None:
        if not callable(evaluate):
            raise ConfigError(
                f"evaluate is {shown(evaluate)}; it must be a function that takes the model and "
                "returns its score."
            )
        check_takes_model("evaluate", evaluate)
        check_takes_model("finetune", finetune, "the model and trains it")
        if optimize_mode not in SIGNS:
            raise ConfigError(
                f"optimize_mode is {optimize_mode!r}; it must be 'maximize' or 'minimize'."
                f"{did_you_mean(str(optimize_mode), SIGNS)}"
            )
        if checkpoint is not None and experiment_data_dir is not None:
            raise ConfigError(
                "checkpoint and experiment_data_dir both say where the trials are; keep one."
            )
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        self.evaluate, self.optimize_mode = evaluate, optimize_mode
        self.finetune, self.seed = finetune, as_seed(seed)
        self.pruning_algorithm, self.config_list = pruning_algorithm, config_list
        self.experiment_data_dir, self.checkpoint = experiment_data_dir, checkpoint
        self.pruning_params = dict(pruning_params or {})
        if calibrate is not None:
            self.pruning_params["calibrate"] = calibrate
        self._kind = class_of(pruning_algorithm)
        if self.pruning_params.get("mode", "normal") != "normal":
            raise ConfigError(
                f"pruning_params has the mode {self.pruning_params['mode']!r}; the search itself "
                "gives each layer its sparsity, so that the mode has to be 'normal'."
            )
        self.history: list[dict[str, Any]] = []
        self.best: Sparsities | None = None
        self.best_score: float | None = None
        self._adopted = 0
        # What fine-tuning has made of the best trial since: its number, its score, its weights.
        self._tuned: tuple[int, float, Kept] | None = None
        _check_dense(model)
        # What does not fit the model is refused now; the masks of this pruner hide nothing.
        self.bound_model = self._made_for(model).bound_model
        unwrap(self.bound_model)

    # --- what a search is -------------------------------------------------------------------

    @abstractmethod
    def plans(self) -> Plans:
        """Yield the sparsities to try; receive the score, higher is better.

        A list of plans gets a list of scores. A search calls `keep()` with the best plan so far.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans depend on, as plain data; trials of other settings are refused."""
        return {}

    @property
    def length(self) -> int | None:
        """The number of trials, or None if it is not known."""
        return None

    def keep(self, sparsities: Sparsities, score: float | None, trial: int | None = None) -> None:
        """Remember the best plan so far.

        Args:
            sparsities: The plan.
            score: Its score, as it was sent.
            trial: The number of its trial.
        """
        self.best = dict(sparsities)
        self.best_score = None if score is None else SIGNS[self.optimize_mode] * score

    def adopt(self, number: int, trial: int, plan: Plan, score: float | None) -> None:
        """Let all further trials begin with the weights and masks of a plan, and keep it.

        Args:
            number: The number of the round that this ends, from 1.
            trial: The number of the trial whose fine-tuning it was.
            plan: Its sparsities.
            score: Its score, as it was sent.
        """
        self._adopted = number
        if number > self._start.round:  # else by an earlier start, whose weights have been read
            with seeded(self._seed_of(trial)):
                self._put(plan)
                if self._tuned is not None and self._tuned[0] == trial:
                    self._tuned[2].restore()
                else:
                    self._tune()
            self._start.move(number, self.pruner.masks)
            if (path := self._weights_file) is not None:
                self._start.write(path, self._run)
        self._tuned = None
        self.keep(plan, score)

    # --- the layers -------------------------------------------------------------------------

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer."""
        return {each.name: each.alive.size for each in self.pruner.targets}

    @property
    def caps(self) -> dict[str, float]:
        """The most that each layer may lose."""
        return {
            each.name: float(each.config.get("max_sparsity_per_layer", self.default_cap))
            for each in self.pruner.targets
        }

    @property
    def budgets(self) -> list[tuple[list[str], float]]:
        """The layers of each entry of the rules, and the ratio that they lose together."""
        names: dict[int, list[str]] = defaultdict(list)
        asked: dict[int, float] = {}
        for each in self.pruner.targets:
            names[each.config["entry"]].append(each.name)
            asked[each.config["entry"]] = float(each.config["sparsity"])
        return [(names[entry], asked[entry]) for entry in names]

    def _make_budget(self) -> Budget:
        sizes, pieces = self.sizes, []
        for each in self.pruner.targets:
            parts = self.pruner.alive(each).size
            pieces.append(Piece(parts, {each.name: sizes[each.name] // parts}))
        return WeightBudget(self.budgets, sizes, self.caps, pieces)

    def uniform(self) -> Sparsities:
        """The same sparsity in all layers of an entry."""
        sizes = self.sizes
        return self.budget.fitted(dict.fromkeys(sizes, 1.0), dict.fromkeys(sizes, 0.0))

    # --- running ----------------------------------------------------------------------------

    def compress(self) -> Compressed[keras.Model, Masks]:
        """Search, put the best in force, and return the model and its masks."""
        _check_dense(self.bound_model)
        self._start = Start(self.bound_model, trained=self.finetune is not None)
        dense = self._start.kept
        try:
            self._begin()
            with Task(type(self).__name__, self.length, "trial") as task:
                complete = self._search(task)
            if self.best is None:
                raise PruneError(
                    f"{type(self).__name__} has nothing to search for: the model is as small as it "
                    "is asked to be. Ask for a higher sparsity."
                )
            self._put(self.best)
        except BaseException:
            unwrap(self.bound_model)
            dense.restore()
            raise
        shortfall = self.budget.shortfall(self.pruner.sparsity()) if complete else None
        if shortfall is not None:
            warn(
                f"{type(self).__name__} does not meet its target: {shortfall}. "
                f"{type(self.pruner).__name__} masks less than it is told; choose another "
                "pruning_algorithm, or ask for more."
            )
        return Compressed(self.bound_model, self.pruner.masks)

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return unwrap(self.bound_model)

    def _made_for(self, model: keras.Model) -> Pruner:
        return self._kind(model, self.config_list, **self.pruning_params)

    def _begin(self) -> None:
        """Put masks on that hide nothing, and go on from where an earlier start was."""
        self.history, self.best, self.best_score = [], None, None
        self._adopted, self._tuned = 0, None
        self.pruner = self._made_for(self.bound_model)
        self._start.masks = self.pruner.masks
        self._run = run_of(
            self,
            algorithm=self.pruning_algorithm,
            config_list=self.config_list,
            optimize_mode=self.optimize_mode,
            seed=self.seed,
            weights=digest_of(np.ascontiguousarray(t.weight).data for t in self.pruner.targets),
            target=None,
            settings=self.settings,
        )
        self.budget = self._make_budget()
        self._trials = StateFile(self._trials_file, self._run)
        if (path := self._weights_file) is not None:
            self._start.read(path, self._run)
            self._start.put_back()

    def _search(self, task: Task) -> bool:
        """Try what there is to try, and return whether the search came to its own end."""
        plans, answer = self.plans(), None
        while True:
            try:
                asked = plans.send(answer)
            except StopIteration:
                return True
            except DeadEndError as end:
                if self.best is None:
                    raise
                warn(f"{end} The result is the best so far.")
                return False
            scores = [
                self._tried(plan, task) for plan in (asked if isinstance(asked, list) else [asked])
            ]
            answer = scores if isinstance(asked, list) else scores[0]

    def _tried(self, plan: Plan, task: Task) -> float:
        """Return what a plan scores, negative where less is better."""
        number = len(self.history)
        known = self._trials.known([number]).get(number)
        if known is None:
            trial = self._trials.add(self._try(number, plan))
        else:
            trial = known
            check_same_plan(trial, plan)
        self.history.append(trial)
        task.advance(f"score {trial['score']:g}", replayed=known is not None)
        return SIGNS[self.optimize_mode] * float(trial["score"])

    def _try(self, number: int, plan: Plan) -> dict[str, Any]:
        if self._adopted < self._start.round:
            raise weights_ahead(self._weights_file)
        try:
            with seeded(self._seed_of(number)):
                self._put(plan)
                tuned = self.first_tuned is not None and number >= self.first_tuned
                if tuned:
                    self._tune()
                score = _number(self.evaluate(self.bound_model))
            good = SIGNS[self.optimize_mode] * score
            if tuned and self.finetune and (self._tuned is None or good > self._tuned[1]):
                self._tuned = number, good, self._start.now()
        finally:
            self._start.put_back()
        return {"trial": number, "sparsities": dict(plan), "score": score}

    def _put(self, plan: Plan) -> None:
        """Mask as much as a plan says."""
        if any(plan.values()):
            self.pruner.compress_at(lambda target: plan[target.name])

    def _tune(self) -> None:
        if self.finetune is not None:
            self.finetune(self.bound_model)
            apply_masks(self.bound_model)

    def _seed_of(self, number: int) -> int:
        return self.seed * 1_000_003 + number

    @property
    def _trials_file(self) -> Path | None:
        if self.experiment_data_dir is not None:
            return Path(self.experiment_data_dir) / "trials.json"
        return None if self.checkpoint is None else Path(self.checkpoint)

    @property
    def _weights_file(self) -> Path | None:
        """Where a search that trains keeps weights: only where its trials are kept too."""
        trials = self._trials_file
        return None if trials is None or self.finetune is None else Path(f"{trials}.weights")


def _check_dense(model: Any) -> None:
    if isinstance(model, keras.Model) and masks_of(model):
        raise ConfigError(
            f"{model.name!r} is masked already, and every trial begins with the dense model. "
            "Call prune_tf.unwrap(model) first."
        )


def _number(returned: Any) -> float:
    """Return the score that was returned."""
    try:
        score = number_from(returned)
    except TypeError as error:
        raise PruneError(f"{error}; a score has to be a number.") from error
    if not isfinite(score):
        raise PruneError(f"evaluate returned {score}; a score has to be a number.")
    return score
