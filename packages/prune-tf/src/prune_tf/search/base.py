"""The base class of searches for the sparsity of each layer of a Keras model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import keras
import numpy as np

from prune_core.amount import DEFAULT_CAP
from prune_core.callables import check_takes_model
from prune_core.compressed import Compressed
from prune_core.config import load_config
from prune_core.errors import ConfigError, PruneError, did_you_mean, shown, warn
from prune_core.progress import Task
from prune_core.seed import as_seed
from prune_speedup.search.latency_cache import LatencyCache
from prune_speedup.search.pieces import Piece, connected, coupled_pieces, makers_of_groups
from prune_speedup.search.plans import Sparsities
from prune_speedup.search.rules import without_amounts
from prune_speedup.search.trials_file import StateFile, digest_of, run_of
from prune_speedup.search.weights import Budget, WeightBudget
from prune_tf.gradual import class_of
from prune_tf.masks import Masks, masks_of, unwrap
from prune_tf.pruning.closing import masks_that_go
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.search.model_budget import ModelBudget, RemovedWeights
from prune_tf.search.runner import SIGNS, TrialRunner
from prune_tf.search.start import Start
from prune_tf.seeds import seeded

__all__ = ["MoreOptions", "Options", "SearchPruner"]

COUPLED = "dependency_aware"


class MoreOptions(TypedDict, total=False):
    """What every search takes besides a target: see `SearchPruner`."""

    pruning_params: Mapping[str, Any] | None
    calibrate: Callable[[keras.Model], Any] | None
    seed: int
    dummy_input: Any
    checkpoint: str | PathLike[str] | None


class Options(MoreOptions, total=False):
    """What every search takes besides its own arguments: see `SearchPruner`."""

    target: Mapping[str, float] | None


class SearchPruner(TrialRunner):
    """Searches for the sparsity of each layer that scores best in the user's `evaluate`.

    A subclass yields the plans to try from `plans()`, and is sent the score of each, higher being
    better. The plans may depend on the seed and on the scores so far, and on nothing else: a search
    that starts again is sent the scores that are known already.

    Where `evaluate` or `finetune` raises, the model is as it was before the search. Ctrl-C ends it
    with the best so far.

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
        target: What may be left of the model instead of the sparsities of the rules, such as
            `{"flops": 0.5}`: of `parameters`, `flops`, measured `latency` or a registered cost.
            Layers that can only lose channels together then get the same sparsity.
        dummy_input: A batch on which a latency is measured; made up unless given.
        checkpoint: A JSON file for the trials instead.

    Attributes:
        history: The trials: number, sparsity of each layer, and score.
        best: The plan that the search has ended with.
        best_score: Its score.
        complete: Whether it came to its end, and was not stopped by Ctrl-C.
    """

    framework: ClassVar[str] = "keras"
    # A layer that loses everything cuts the network in two, so it takes an explicit cap of 1.
    default_cap: ClassVar[float] = DEFAULT_CAP

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
        target: Mapping[str, float] | None = None,
        dummy_input: Any = None,
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
        if target is not None:
            config_list = without_amounts(config_list, target)
        self.target, self.dummy_input = target, dummy_input
        self.evaluate, self.optimize_mode = evaluate, optimize_mode
        self.finetune, self.seed = finetune, as_seed(seed)
        self.pruning_algorithm, self.config_list = pruning_algorithm, config_list
        self.experiment_data_dir, self.checkpoint = experiment_data_dir, checkpoint
        self.pruning_params = dict(pruning_params or {})
        if calibrate is not None:
            self.pruning_params["calibrate"] = calibrate
        self._kind = class_of(pruning_algorithm)
        self._check_mode()
        self.history: list[dict[str, Any]] = []
        self.best: Sparsities | None = None
        self.best_score: float | None = None
        self.complete = False
        self._adopted = 0
        self._tuned = None
        self._base: Masks = {}
        self._counts_removed = False
        _check_dense(model)
        # What does not fit the model is refused now; the masks of this pruner hide nothing.
        self.bound_model = self._made_for(model).bound_model
        unwrap(self.bound_model)

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
        if self.target is not None:
            return self._budget_of_model(self.target)
        sizes, coupling = self.sizes, self.pruner.coupling
        if coupling is not None and self._counts_removed:
            return RemovedWeights(self.pruner, self.budgets, self.caps, self.dummy_input)
        if coupling is not None:
            groups = connected(makers_of_groups(coupling, [*sizes]).values(), [*sizes])
            pieces = coupled_pieces(coupling, sizes)
            return WeightBudget(self.budgets, sizes, self.caps, pieces, groups)
        pieces = []
        for each in self.pruner.targets:
            parts = self.pruner.alive(each).size
            pieces.append(Piece(parts, {each.name: sizes[each.name] // parts}))
        return WeightBudget(self.budgets, sizes, self.caps, pieces)

    def _budget_of_model(self, target: Mapping[str, float]) -> ModelBudget:
        measured = None
        if "latency" in target:
            measured = LatencyCache(
                self.experiment_data_dir,
                self.checkpoint is not None,
                instead="give experiment_data_dir= in place of checkpoint=",
            )
        budget = ModelBudget(self.pruner, target, self.caps, self.dummy_input, measured)
        # Masks are made once, to see whether what they mask can be removed.
        half = {name: 0.5 * cap for name, cap in self.caps.items()}
        with seeded(self.seed):
            budget.check(masks_that_go(self.pruner, lambda each: half[each.name]), half)
        return budget

    def uniform(self) -> Sparsities:
        """The same sparsity in all layers of an entry, or in all layers with a target."""
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
                self.complete = self._search(task)
            if self.best is None:
                raise PruneError(
                    f"{type(self).__name__} has nothing to search for: the model is as small as it "
                    "is asked to be. Ask for a higher sparsity."
                )
            self._put_best(self.best)
        except BaseException:
            unwrap(self.bound_model)
            dense.restore()
            raise
        shortfall = self.budget.shortfall(self.pruner.sparsity()) if self.complete else None
        if shortfall is not None:
            warn(
                f"{type(self).__name__} does not meet its target: {shortfall}. "
                f"{type(self.pruner).__name__} masks less than it is told; choose another "
                "pruning_algorithm, or ask for more."
            )
        return Compressed(self.bound_model, masks_of(self.bound_model))

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return unwrap(self.bound_model)

    def _made_for(self, model: keras.Model) -> Pruner:
        return self._kind(model, self.config_list, **self.pruning_params)

    def _begin(self) -> None:
        """Put masks on that hide nothing, and go on from where an earlier start was."""
        self.history, self.best, self.best_score, self.complete = [], None, None, False
        self._adopted, self._tuned, self._best_trial = 0, None, None
        self.pruner = self._made_for(self.bound_model)
        self._run = run_of(
            self,
            algorithm=self.pruning_algorithm,
            config_list=self.config_list,
            optimize_mode=self.optimize_mode,
            seed=self.seed,
            weights=digest_of(np.ascontiguousarray(t.weight).data for t in self.pruner.targets),
            target=self.target,
            settings=self.settings,
        )
        self.budget = self._make_budget()
        if self._base:
            self._start.masks = self._base
            self._start.put_back()
        self._trials = StateFile(self._trials_file, self._run)
        if (path := self._weights_file) is not None:
            self._start.read(path, self._run)
            self._start.put_back()

    def _check_mode(self) -> None:
        """Refuse modes in which layers give to each other what the search has given to one."""
        mode = self.pruning_params.get("mode")
        if self.target is not None and mode is None:
            if COUPLED not in self._kind.modes:
                raise ConfigError(
                    f"A target needs an algorithm that prunes output channels together, and "
                    f"{self.pruning_algorithm!r} has no mode {COUPLED!r}. Use one that has, such "
                    "as 'l1', or give the rules a sparsity instead."
                )
            self.pruning_params["mode"] = mode = COUPLED
        modes = [COUPLED] if self.target is not None else ["normal", COUPLED]
        if mode is not None and mode not in modes:
            raise ConfigError(
                f"pruning_params has the mode {mode!r}; the search itself gives each layer its "
                f"sparsity, so that the mode has to be {' or '.join(map(repr, modes))}."
            )

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
