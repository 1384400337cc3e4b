"""The base class of searches for the sparsity of each layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import Any, ClassVar

from torch import nn

from prune_core import Compressed, ConfigError, PruneError, PruneWarning
from prune_core.callables import check_takes_model
from prune_core.compat import understands
from prune_core.config import load_config, parse
from prune_core.evaluators import scoring_of
from prune_core.masking import Masks
from prune_core.progress import Task
from prune_core.seed import as_seed
from prune_schedule.budget.model import ModelBudget, coupled_layers
from prune_schedule.budget.pieces import pieces_of
from prune_schedule.compat.positional import SEARCH
from prune_schedule.run.delegating import one_shot_class
from prune_schedule.run.evaluation import Evaluate
from prune_schedule.run.isolation import tidied
from prune_schedule.run.processes import is_first
from prune_schedule.run.result import Result
from prune_schedule.run.timeout import check_time_limit
from prune_schedule.search.kept import KeptSearch
from prune_schedule.search.needs import coupled, rules_for_target
from prune_schedule.search.plans import DeadEndError, Sparsities
from prune_schedule.store.result_folder import ResultFolder
from prune_schedule.store.trials import Trials
from prune_speedup.search.latency_cache import LatencyCache
from prune_speedup.search.rules import AMOUNTS
from prune_speedup.search.weights import Budget, WeightBudget
from prune_toolkit.running.random_state import seeded

__all__ = ["ConfigList", "SearchPruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]


class SearchPruner(KeptSearch):
    """Searches for the sparsity of each layer that scores best in the user's `evaluate`.

    A subclass yields the plans to try from `plans()`, and is sent the score of each. The plans may
    depend on the seed and on the scores so far, and on nothing else: a resumed search replays its
    history.

    Args:
        model: The model, wrapped in place.
        config_list: The rules. The sparsity of an entry is that of all its layers together.
        evaluate: Takes the model and returns its score.
        optimize_mode: `"maximize"` or `"minimize"`.
        pruning_algorithm: A registered pruner, or a class.
        pruning_params: Further arguments of the pruning algorithm.
        calibrate: Runs the model on some batches, for data-driven criteria.
        experiment_data_dir: A folder for the study, from which the search can be resumed.
        log_dir: Another folder for the result.
        storage: The URL of a database for the study instead.
        study_name: The name of the study.
        trial_timeout: The seconds that an evaluation may take.
        seed: Seed of the random numbers of the search.
        target: What may be left of the model instead of the sparsities of the rules, such as
            `{"flops": 0.5}`: of `parameters`, `flops`, measured `latency` or a registered cost.
        dummy_input: An input of the model, for a target. With it, layers that can only lose
            channels together get the same sparsity.
        checkpoint: A JSON file for the trials instead, without Optuna.
    """

    optimize_modes: ClassVar[tuple[str, ...]] = ("maximize", "minimize")
    # A layer that loses everything cuts the network in two, so it takes an explicit cap of 1.
    default_cap: ClassVar[float] = 0.99

    @understands(SEARCH)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        evaluate: Evaluate | None = None,
        optimize_mode: str = "maximize",
        *,
        pruning_algorithm: str | Callable[..., Any] = "level",
        pruning_params: Mapping[str, Any] | None = None,
        calibrate: Callable[[nn.Module], Any] | None = None,
        experiment_data_dir: str | PathLike[str] | None = None,
        log_dir: str | PathLike[str] | None = None,
        storage: Any = None,
        study_name: str | None = None,
        trial_timeout: float | None = None,
        seed: int = 0,
        target: Mapping[str, float] | None = None,
        dummy_input: Any = None,
        checkpoint: str | PathLike[str] | None = None,
    ) -> None:
        if optimize_mode not in self.optimize_modes:
            raise ConfigError(
                f"optimize_mode is {optimize_mode!r}; it must be 'maximize' or 'minimize'."
            )
        # Until it runs, what else the function takes may still be given.
        check_takes_model("evaluate", evaluate, "the model and returns its score", alone=False)
        check_time_limit(trial_timeout)
        self.evaluator, self.optimize_mode = scoring_of(evaluate), optimize_mode
        self.pruning_algorithm = pruning_algorithm
        self.pruning_params = dict(pruning_params or {})
        if calibrate is not None:
            self.pruning_params["calibrate"] = calibrate
        self.experiment_data_dir, self.storage = experiment_data_dir, storage
        self.study_name = study_name or type(self).__name__
        self.log_dir = log_dir
        self.trial_timeout, self.seed = trial_timeout, as_seed(seed)
        self.target, self.dummy_input, self.checkpoint = target, dummy_input, checkpoint
        self.reset(model, config_list)

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model or config; the old model is unwrapped first.

        Args:
            model: The model to prune from now on.
            config_list: The rules, or the path of a file that holds them.
        """
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        algorithm, params = one_shot_class(self.pruning_algorithm), self.pruning_params
        if self.dummy_input is not None:
            params = coupled(algorithm, params, self.dummy_input)
        if self.target is not None:
            config_list = rules_for_target(config_list, self.target, self.dummy_input)
        parse(config_list, getattr(algorithm, "config_keys", ()))
        self._make_one_shot(algorithm, params, model, list(config_list))
        self.config_list = config_list
        self._groups = super().generate_module_groups()
        for place, wrapper in enumerate(self.get_modules_wrapper().values()):
            # The search says how much each layer loses, so none may give to another, as layers of
            # one entry do for an algorithm that ranks them together.
            wrapper.config["entry"] = place
        self._budget: Budget | None = None
        self.trials = Trials()
        self.best: Sparsities | None = None
        self.best_score: float | None = None
        self._best_trial: int | None = None
        # What a search that trains has pruned for good; all it tries comes on top of that.
        self._base: Masks = {}
        self._run: dict[str, Any] | None = None
        self._known: list[dict[str, Any]] = []

    # --- the layers -----------------------------------------------------------------------

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer."""
        return {
            name: wrapper.module.get_parameter(wrapper.target).numel()
            for name, wrapper in self.get_modules_wrapper().items()
        }

    @property
    def budgets(self) -> list[tuple[list[str], float]]:
        """The layers of each entry of the config, and the ratio they lose together."""
        return [
            (names, self._asked(entry)) for entry, names in self.generate_module_groups().items()
        ]

    def generate_module_groups(self) -> dict[int, list[str]]:
        """Return `{entry of the config_list: module names}`."""
        return {entry: list(names) for entry, names in self._groups.items()}

    def _asked(self, index: int) -> float:
        entry = self.config_list[index]
        return float(next(entry[key] for key in AMOUNTS if key in entry))

    @property
    def caps(self) -> dict[str, float]:
        """The most that each layer may lose."""
        return {
            name: float(wrapper.config.get("max_sparsity_per_layer", self.default_cap))
            for name, wrapper in self.get_modules_wrapper().items()
        }

    @property
    def floors(self) -> dict[str, float]:
        """The least that each layer loses: what has been pruned permanently."""
        return dict.fromkeys(self.sizes, 0.0) | {
            name: int((~self._base[name][wrapper.target]).sum()) / self.sizes[name]
            for name, wrapper in self.get_modules_wrapper().items()
            if name in self._base
        }

    @property
    def budget(self) -> Budget:
        """What may be left, and which sparsities leave no more."""
        if self._budget is None:
            self._budget = self._make_budget()
        return self._budget

    def _make_budget(self) -> Budget:
        if self.target is None:
            groups = None
            if self.dummy_input is not None:
                groups = coupled_layers(self.one_shot, self.dummy_input)
            pieces = pieces_of(self.one_shot)
            return WeightBudget(self.budgets, self.sizes, self.caps, pieces, groups)
        measured = None
        if "latency" in self.target:
            elsewhere = self.storage is not None or self.checkpoint is not None
            folder = self.log_dir or self.experiment_data_dir
            measured = LatencyCache(folder, elsewhere, writes=is_first())
        budget = ModelBudget(self.one_shot, self.target, self.dummy_input, self.caps, measured)
        self._check_masks(budget)
        return budget

    def _check_masks(self, budget: ModelBudget) -> None:
        """Make masks once, to see whether what they mask can be removed."""
        half = {name: 0.5 * cap for name, cap in self.caps.items()}
        with seeded(self.seed), tidied(self.bound_model):
            try:
                self._put(half)
                budget.check(self.one_shot.masks, half)
            finally:
                self._clear()

    def uniform(self) -> Sparsities:
        """The same sparsity in all layers of an entry, or in all layers with a target."""
        return self.budget.fitted(dict.fromkeys(self.sizes, 1.0), self.floors)

    # --- running --------------------------------------------------------------------------

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Search, put the best in force, and return the wrapped model and the masks.

        With `speedup`, these are a small copy and the masks that it still needs.

        Args:
            example_inputs: An input of the model. With it, the masks also cover what comes after
                a masked channel, such as the bias of a normalisation.
        """
        result = self.run()
        if self.speedup:
            return Compressed(result.model, result.masks)
        if example_inputs is not None:
            self.close_masks(example_inputs)
        return Compressed(self.bound_model, self.masks)

    def run(self, evaluate: Evaluate | None = None) -> Result:
        """Search, and put the best in force.

        An evaluation that raises, returns no finite number or takes longer than `trial_timeout`
        fails: its trial says why, and the search goes on. Ctrl-C ends it with the best so far.

        Args:
            evaluate: Takes the model and returns its score; that of the search unless given.
        """
        evaluate = scoring_of(evaluate) or self.evaluator
        if evaluate is None:
            raise ConfigError(
                "A search needs a score: give evaluate=, a function that takes "
                "the model and returns a number."
            )
        check_takes_model("evaluate", evaluate, "the model and returns its score")
        complete = True
        self.trials, self._busy = Trials(), False
        if self.target is not None:
            self._budget = self.budget
        self.prepare()
        with closing(self._open_history()) as history:
            try:
                with Task(
                    self.study_name, self.length, "trial", self._plan(), announce=True
                ) as task:
                    self._search(evaluate, history, task)
            except KeyboardInterrupt:
                if self.best is None:
                    raise
                complete = False
            except DeadEndError as end:
                if self.best is None:
                    raise
                complete = False
                warnings.warn(f"{end} The result is the best so far.", PruneWarning, stacklevel=2)
            finally:
                self._clear()
                # Also when the search ends with an error: the next run() goes on from here.
                made = {trial["trial"]: trial for trial in (*self._known, *self.trials)}
                self._known = list(made.values())
        if self.best is None and any(trial["score"] is not None for trial in self.trials):
            raise PruneError(
                f"{type(self).__name__}.plans() ended without a result: it has to call "
                "keep(plan, score) with the best plan so far."
            )
        if self.best is None:
            problems = {trial["problem"] for trial in self.trials}
            raise PruneError(
                f"None of {len(self.trials)} trials has a score, so there is no result: "
                f"{'; '.join(sorted(filter(None, problems)))}."
            )
        self._put_best(self.best)
        if complete and (shortfall := self.budget.shortfall(self.sparsities)) is not None:
            warnings.warn(
                f"{type(self).__name__} does not meet its target: {shortfall}. "
                f"{type(self.one_shot).__name__} masks less than it is told; choose another "
                "pruning_algorithm, or let it prune more layers.",
                PruneWarning,
                stacklevel=2,
            )
        ResultFolder(self.log_dir or self.experiment_data_dir, keep_all=False).finish(self)
        model, masks = self.bound_model, self.masks
        if self.speedup and complete:
            model, masks = self._finished(self.dummy_input)
        return Result(model, masks, self.best_score, self.sparsities, self.trials, complete)

    def _plan(self) -> str:
        """Describe the goal of the search."""
        layers = f"{len(self.sizes)} layer{'s' if len(self.sizes) > 1 else ''}"
        if self.target is not None:
            kinds = (f"{ratio:.1%} of the {kind}" for kind, ratio in self.target.items())
            return f"to leave {' and '.join(kinds)}, from {layers}"
        amounts = sorted({f"{total:.1%}" for _, total in self.budgets})
        return f"to prune {' and '.join(amounts)} of the weights of {layers}"

    def get_best_result(
        self,
    ) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Return number, model, masks, score and config of the best.

        The model is a copy without wrappers: zeros where masked, or made small, with the masks
        that are left, if `speedup` was asked for.
        """
        if self.best is None:
            raise PruneError("There is no result yet: call compress() or run() first.")
        numbers = [t["trial"] for t in self.trials if t["sparsities"] == self.best]
        model, masks = self._finished(self.dummy_input if self.speedup else None)
        return numbers[0] if numbers else -1, model, masks, self.best_score, self.reached_config
