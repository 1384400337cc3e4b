"""AutoCompress: rounds of annealing, ADMM and shrinking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import keras
import numpy as np

from prune_core.compressed import Compressed, model_of
from prune_core.config import load_config
from prune_core.errors import ConfigError
from prune_core.evaluators import training_of
from prune_core.options import ChecksOptions, check_options
from prune_core.progress import Task
from prune_core.seed import as_seed
from prune_speedup.search.admm import ADMM, DEFAULT_RHO
from prune_speedup.search.autocompress import settings_from
from prune_speedup.search.rounds import check_rounds, goal, said
from prune_speedup.search.rules import without_amounts
from prune_speedup.search.trials_file import digest_of, run_of
from prune_tf.admm import ADMMPruner
from prune_tf.gradual import class_of
from prune_tf.masks import Masks, masks_of, unwrap
from prune_tf.no_callback import NoCallback
from prune_tf.pruning.pruner import ConfigList, Pruner
from prune_tf.search.autocompress.result import Result
from prune_tf.search.autocompress.rounds import AutoCompressRounds
from prune_tf.search.autocompress.stages import Stages, as_it_is
from prune_tf.search.base import COUPLED

__all__ = ["AutoCompressPruner"]


class AutoCompressPruner(AutoCompressRounds, NoCallback, metaclass=ChecksOptions):
    """Rounds of annealing, which finds how much each layer can lose, ADMM training and shrinking.

    After round t of n, `1 − (1 − s)^(t/n)` of the weights are gone: each round removes the same
    part of what is left, and the next one works on the smaller model.

    Layers of Keras cannot change their shapes, so that each round makes a new model: the one that
    is returned is small, and the one that was given is as it was. What cannot be removed stays
    masked. With `speedup=False`, nothing is removed: the model itself is masked in place, and the
    masks grow from round to round.

    Liu et al., AutoCompress: An Automatic DNN Structured Pruning Framework for Ultra-High
    Compression Rates, https://arxiv.org/abs/1907.03141

    Args:
        model: The model.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.99 unless given, in a round.
        finetune: Takes the model and trains it for an epoch, for ADMM. It gets another model in
            each round, compiled as the first one was.
        evaluate: Takes the model and returns its score.
        total_iteration: The number of rounds.
        optimize_mode: `"maximize"` or `"minimize"`.
        start_temperature: The first temperature of annealing; 100 by default.
        stop_temperature: The temperature at which a search ends; 20 by default.
        cool_down_rate: The factor of the temperature with each trial; 0.9 by default.
        perturbation_magnitude: The largest change of a layer's sparsity at first; 0.35 by
            default.
        admm_num_iterations: The iterations of ADMM; 30 by default.
        admm_training_epochs: How often `finetune` is called in each of them; 5 by default.
        row: The weight ρ of ADMM's penalty.
        experiment_data_dir: A folder for searches and rounds, from which they go on.
        admm_params: Further arguments of `ADMMPruner`.
        sa_params: Further arguments of `SimulatedAnnealingPruner`.
        finetuner: Takes the model and trains it at the end of each round, when it is small.
        speedup: Whether to remove masked channels after each round; by default where the
            algorithm prunes channels that go together.
        pruning_algorithm: A registered pruner, or a class. Unless given, `"l1"`; with
            `admm_params`, what their granularity says.
        pruning_params: Further arguments of the pruning algorithm.
        target: What may be left instead of the sparsities of the rules, such as
            `{"flops": 0.5}`: of `parameters`, `flops`, measured `latency` or a registered cost.
        dummy_input: A batch on which small models are compared and a latency is measured; made up
            unless given.
        checkpoint: A file from which the same call goes on after the last complete round.
        seed: Seed of the random numbers of searches and training.

    Attributes:
        history: The rounds, as in the result.
        searches: For each round, what its search has tried.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from prune_tf import AutoCompressPruner
        >>> model = keras.Sequential(
        ...     [
        ...         keras.layers.Input((8,)),
        ...         keras.layers.Dense(16, activation="relu", name="a"),
        ...         keras.layers.Dense(2, name="head"),
        ...     ]
        ... )
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((16, 8)), np.ones((16, 2))
        >>> pruner = AutoCompressPruner(
        ...     model,
        ...     [{"op_names": ["a"]}],
        ...     finetune=lambda model: model.fit(x, y, verbose=0),
        ...     evaluate=lambda model: -model.evaluate(x, y, verbose=0),
        ...     target={"flops": 0.5},
        ...     total_iteration=2,
        ...     cool_down_rate=0.5,
        ...     admm_num_iterations=1,
        ...     admm_training_epochs=1,
        ... )
        >>> small, masks = pruner.compress()
        >>> small.get_layer("a").units, model.get_layer("a").units
        (8, 16)
    """

    framework: ClassVar[str] = "keras"
    instead: ClassVar[str] = (
        ": it searches and trains in rounds. Give it finetune=..., and call compress()."
    )

    def __init__(
        self,
        model: keras.Model,
        config_list: ConfigList,
        *,
        finetune: Callable[[keras.Model], Any] | None = None,
        evaluate: Callable[[keras.Model], Any] | None = None,
        total_iteration: int = 3,
        optimize_mode: str = "maximize",
        start_temperature: float | None = None,
        stop_temperature: float | None = None,
        cool_down_rate: float | None = None,
        perturbation_magnitude: float | None = None,
        admm_num_iterations: int | None = None,
        admm_training_epochs: int | None = None,
        row: float = DEFAULT_RHO,
        experiment_data_dir: str | PathLike[str] | None = None,
        admm_params: Mapping[str, Any] | None = None,
        sa_params: Mapping[str, Any] | None = None,
        finetuner: Callable[[keras.Model], Any] | None = None,
        speedup: bool | None = None,
        pruning_algorithm: str | type[Pruner] | None = None,
        pruning_params: Mapping[str, Any] | None = None,
        target: Mapping[str, float] | None = None,
        dummy_input: Any = None,
        checkpoint: str | PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.rounds = check_rounds(total_iteration)
        self.target, self.seed, self.rho = target, as_seed(seed), row
        settings = settings_from(
            evaluate=evaluate,
            finetuner=finetuner,
            dummy_input=dummy_input,
            admm_params=admm_params,
            sa_params=sa_params,
            pruning_algorithm=pruning_algorithm,
            pruning_params=pruning_params,
            search={
                "optimize_mode": optimize_mode,
                "start_temperature": start_temperature,
                "stop_temperature": stop_temperature,
                "cool_down_rate": cool_down_rate,
                "perturbation_magnitude": perturbation_magnitude,
            },
            training={
                "finetune": finetune,
                "iterations": admm_num_iterations,
                "training_epochs": admm_training_epochs,
            },
        )
        self.finetuner, self.evaluate = settings.finetune, settings.evaluate
        self.dummy_input = settings.dummy_input
        self._search, self._admm = settings.search, settings.training
        if (evaluator := self._admm.pop("evaluator", None)) is not None:
            self._admm["finetune"] = training_of(evaluator)
        # What ADMM would refuse after the first search is refused now.
        check_options(ADMMPruner, signature(ADMMPruner), (model, config_list), self._admm)
        known = {"row": row, **self._admm}
        ADMM(**{name: value for name, value in known.items() if name in ADMM.__slots__})
        chosen: Any = settings.pruning_algorithm
        self.pruning_algorithm, self._kind = chosen, class_of(chosen)
        self.speedup = self._removes(speedup)
        coupled = COUPLED in self._kind.modes and (self.speedup or target is not None)
        self.pruning_params = {**({"mode": COUPLED} if coupled else {}), **settings.pruning_params}
        self._folder = None if experiment_data_dir is None else Path(experiment_data_dir)
        if checkpoint is None and self._folder is not None:
            checkpoint = self._folder / "rounds.safetensors"
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self._read_rules(model, config_list)

    def _removes(self, speedup: bool | None) -> bool:
        if speedup and not self._kind.per_channel:
            raise ConfigError(
                f"speedup is True, and {self.pruning_algorithm!r} masks single weights, which "
                "cannot be taken out. Use an algorithm that prunes channels, such as 'l1', or "
                "leave speedup out."
            )
        return COUPLED in self._kind.modes if speedup is None else bool(speedup)

    def _read_rules(self, model: keras.Model, config_list: ConfigList) -> None:
        """Refuse what does not fit the model; nothing of it changes."""
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        self.config_list = self._rules = config_list
        if self.target is not None:
            self._rules = without_amounts(config_list, self.target)
        self.bound_model = self._given = model_of(model)
        self._searching(self.config_list, self.target, 0, None)
        targets = self._targets_in(self.bound_model)
        self._entries = {each.name: each.config["entry"] for each in targets}
        self._sizes = {each.name: each.alive.size for each in targets}
        self._left = dict.fromkeys(self.target or (), 1.0)
        self.history: list[dict[str, Any]] = []
        self.searches: list[list[dict[str, Any]]] = []
        self._begun = False

    # --- running --------------------------------------------------------------------------

    def compress(self) -> Compressed[keras.Model, Masks]:
        """Run all remaining rounds, and return the model and the masks left on it.

        Ctrl-C and errors are as for `run()`.
        """
        result = self.run()
        return Compressed(result.model, result.masks)

    def run(self) -> Result:
        """Run all remaining rounds: search, train, make small, evaluate.

        Ctrl-C goes back to the end of the last complete round and returns that; before there is
        one, it is raised. What `finetune` or `evaluate` raises is raised, with the model as it was
        at the end of that round.
        """
        dense = as_it_is(self._given)
        if not self._begun:
            self._begin(dense)
        complete = True
        plan = goal(self._rules, self.target)
        try:
            with Task(type(self).__name__, self.rounds, "round", plan, announce=True) as task:
                for trial in self.history:
                    task.advance(said(trial), replayed=True)
                while len(self.history) < self.rounds:
                    task.advance(said(self._next(dense)))
        except KeyboardInterrupt:
            if not self.history:
                raise
            complete = False
        model, score = self.bound_model, self.history[-1]["score"]
        found = self.history[-1]["sparsities"]
        return Result(model, masks_of(model), score, found, self.history, complete)

    def _next(self, dense: Any) -> dict[str, Any]:
        """Go through a round, or back to its beginning."""
        model, began = self.bound_model, perf_counter()
        begin, searched, stages = as_it_is(model), len(self.searches), len(self._stages)
        try:
            small, left, trial = self._round(len(self.history) + 1)
            trial["seconds"] = round(perf_counter() - began, 3)
            history = [*self.history, trial]
            state = {"left": left, "history": history, "searches": self.searches}
            self._stages.write(small, state)
            if small is not model and model is self._given:
                dense.put_back(clean=True)
        except BaseException:
            begin.put_back(clean=True)
            del self.searches[searched:]
            self._stages.forget(stages)
            raise
        self.bound_model, self._left, self.history = small, left, history
        return trial

    def _begin(self, dense: Any) -> None:
        """Go on from where an earlier start was."""
        targets = self._targets_in(self._given)
        search = {name: self._search.get(name) for name in (*SEARCH, "tries")}
        admm = {name: self._admm.get(name) for name in ("iterations", "training_epochs")}
        self._stages = Stages(
            self.checkpoint,
            run_of(
                self,
                algorithm=self.pruning_algorithm,
                config_list=self.config_list,
                optimize_mode=self._search["optimize_mode"],
                seed=self.seed,
                weights=digest_of(np.ascontiguousarray(each.weight).data for each in targets),
                target=self.target,
                settings={
                    "rounds": self.rounds,
                    "speedup": self.speedup,
                    "annealing": search,
                    "admm": {"rho": self.rho, **admm},
                },
            ),
        )
        try:
            found = self._stages.read(self._given, self._shrunk)
        except BaseException:
            dense.put_back(clean=True)
            raise
        if found is not None:
            self.bound_model, state = found
            self._left, self.history = state["left"], state["history"]
            self.searches = state["searches"]
            if self.bound_model is not self._given:
                dense.put_back(clean=True)
        self._begun = True

    # --- results --------------------------------------------------------------------------

    @property
    def sparsities(self) -> dict[str, float]:
        """The ratio of its weights that each layer has lost, masked or removed."""
        return self._sparsities_of(self.bound_model)

    def unwrap(self) -> keras.Model:
        """Take all masks off the model, leaving the zeros in its weights, and return it."""
        return unwrap(self.bound_model)


SEARCH = ("start_temperature", "stop_temperature", "cool_down_rate", "perturbation_magnitude")
