"""AutoCompress: rounds of annealing, ADMM and speedup."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from prune_core import Compressed, ConfigError, PruneError, load_pruned, save_pruned
from prune_core.compat import understands
from prune_core.config import load_config, parse
from prune_core.masking import Masks
from prune_core.progress import Task
from prune_core.seed import as_seed
from prune_schedule.compat.positional import AUTOCOMPRESS
from prune_schedule.run.delegating import one_shot_class
from prune_schedule.run.evaluation import Evaluate, Finetune
from prune_schedule.run.result import Result
from prune_schedule.search.autocompress.rounds import AutoCompressRounds
from prune_schedule.search.needs import coupled, rules_for_target
from prune_schedule.store.result_folder import ResultFolder
from prune_schedule.store.snapshot import Snapshots
from prune_schedule.store.trials import Trials
from prune_speedup.search.admm import DEFAULT_RHO
from prune_speedup.search.autocompress import settings_from
from prune_speedup.search.rounds import check_rounds, goal, said
from prune_speedup.torch.tensors import Snapshot
from prune_toolkit.running.random_state import seeded

__all__ = ["AutoCompressPruner"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]
SEARCH = ("start_temperature", "stop_temperature", "cool_down_rate", "perturbation_magnitude")


class AutoCompressPruner(AutoCompressRounds):
    """Rounds of annealing, which finds how much each layer can lose, ADMM training and speedup.

    After round t of n, `1 − (1 − s)^(t/n)` of the weights are pruned: each round removes the same
    part of what is left. With `dummy_input` the masked channels are removed after each round,
    and the next round works on the smaller model; without it, they stay masked.

    Liu et al., AutoCompress: An Automatic DNN Structured Pruning Framework for Ultra-High
    Compression Rates, https://arxiv.org/abs/1907.03141

    Args:
        model: The model, wrapped in place. Training changes its weights.
        config_list: The rules. The sparsity of an entry is that of all its layers together, and
            no layer loses more than `max_sparsity_per_layer`, 0.99 unless given, in a round.
        trainer: Takes the model and trains it for an epoch, or takes model, optimizer, criterion
            and epoch.
        evaluate: Takes the model and returns its score. One that trains as well, such as
            `prune_filter.TorchEvaluator`, is also the finetuner and the trainer unless there are
            others; it does not train in the trials of a search.
        dummy_input: An input of the model, for speedup.
        criterion: The loss function for the trainer; cross entropy by default.
        total_iteration: The number of rounds.
        optimize_mode: `"maximize"` or `"minimize"`.
        start_temperature: The first temperature of annealing; 100 by default.
        stop_temperature: The temperature at which a search ends; 20 by default.
        cool_down_rate: The factor of the temperature with each trial; 0.9 by default.
        perturbation_magnitude: The largest change of a layer's sparsity at first; 0.35 by
            default.
        admm_num_iterations: The iterations of ADMM; 30 by default.
        admm_training_epochs: The epochs of training in each of them; 5 by default.
        row: The weight ρ of ADMM's penalty.
        experiment_data_dir: A folder for searches and training, from which they resume.
        admm_params: Arguments of `ADMMPruner`: trainer, traced_optimizer, criterion or evaluator;
            iterations, training_epochs, and granularity, by which `"level"` or `"l1"` prunes.
        sa_params: Arguments of `SimulatedAnnealingPruner`, its evaluator among them.
        log_dir: A folder for the result.
        keep_intermediate_result: Whether it gets the results of all rounds.
        finetuner: Takes the model and trains it at the end of each round, after speedup.
        speedup: Whether to remove masked channels after each round; by default if there is a
            `dummy_input`.
        finetune: Takes the model and trains it for an epoch; the plain form of `trainer`.
        pruning_algorithm: A registered pruner, or a class. Unless given, what the granularity of
            `admm_params` or the algorithm of `sa_params` say; else `"level"` with `admm_params`,
            and `"l1"` without.
        pruning_params: Further arguments of the pruning algorithm.
        target: What may be left instead of the sparsities of the rules, such as `{"flops": 0.5}`.
        checkpoint: A file from which the same call resumes after the last complete round.
        seed: Seed of the random numbers of searches and training.

    Attributes:
        searches: For each round, what its search has tried.
    """

    @understands(AUTOCOMPRESS)
    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        *,
        trainer: Callable[..., Any] | None = None,
        evaluate: Evaluate | None = None,
        dummy_input: Any = None,
        criterion: Callable[..., Any] | None = None,
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
        log_dir: str | PathLike[str] | None = None,
        keep_intermediate_result: bool = False,
        finetuner: Finetune | None = None,
        speedup: bool | None = None,
        finetune: Finetune | None = None,
        pruning_algorithm: str | Callable[..., Any] | None = None,
        pruning_params: Mapping[str, Any] | None = None,
        target: Mapping[str, float] | None = None,
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
                "trainer": None if finetune is not None else trainer,
                "finetune": finetune,
                "criterion": criterion,
                "iterations": admm_num_iterations,
                "training_epochs": admm_training_epochs,
            },
        )
        self.finetuner, self.evaluator = settings.finetune, settings.evaluate
        self._search, self._admm = settings.search, settings.training
        self.dummy_input = dummy_input = settings.dummy_input
        self.speedup = dummy_input is not None and speedup is not False
        if speedup and dummy_input is None:
            raise ConfigError(
                "speedup is True and dummy_input is missing: give an input of the model, with "
                "which it is traced."
            )
        self.pruning_algorithm, params = settings.pruning_algorithm, settings.pruning_params
        if dummy_input is not None:
            params = coupled(one_shot_class(self.pruning_algorithm), params, dummy_input)
        self.pruning_params = params
        self._folder = None if experiment_data_dir is None else Path(experiment_data_dir)
        self.checkpoint = checkpoint or (self._folder and self._folder / "rounds.pt")
        self._results = ResultFolder(log_dir or self._folder, keep_intermediate_result)
        self.reset(model, config_list)

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start over with another model or config; the old model is unwrapped first."""
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        algorithm = one_shot_class(self.pruning_algorithm)
        rules: Sequence[Mapping[str, Any]] = config_list
        if self.target is not None:
            rules = rules_for_target(config_list, self.target, self.dummy_input)
        parse(rules, getattr(algorithm, "config_keys", ()))
        self._make_one_shot(algorithm, self.pruning_params, model, list(rules))
        self.config_list, self._rules = config_list, rules
        wrappers = self.get_modules_wrapper()
        self._entries = {name: wrapper.config["entry"] for name, wrapper in wrappers.items()}
        self._sizes = {n: w.module.get_parameter(w.target).numel() for n, w in wrappers.items()}
        self._left = dict.fromkeys(self.target or (), 1.0)
        self._done, self._base = 0, {}
        self._large: Snapshot | None = None
        self.trials = Trials()
        self.searches: list[Trials] = []

    # --- running --------------------------------------------------------------------------

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Run all rounds, and return the wrapped model and the remaining masks.

        Args:
            example_inputs: An input of the model. With it, the masks also cover what comes after
                a masked channel, such as the bias of a normalisation.
        """
        self.run()
        if example_inputs is not None:
            self.close_masks(example_inputs)
        return Compressed(self.bound_model, self.masks)

    def run(self) -> Result:
        """Run all remaining rounds: search, train, make small, evaluate.

        Ctrl-C goes back to the end of the last complete round and returns that. What the trainer
        raises is raised, with the model as it was at the end of that round.
        """
        snapshots, begun = self._make_snapshots(self.checkpoint), self._make_snapshots(None)
        if self._done == 0 and not snapshots.restore():
            begun.save()
        complete = True
        try:
            with Task(
                type(self).__name__,
                self.rounds,
                "round",
                goal(self._rules, self.target),
                announce=True,
            ) as task:
                for trial in self.trials:
                    task.advance(said(trial), replayed=True)
                while self._done < self.rounds:
                    began = perf_counter()
                    with seeded(self._seed_of(self._done)):
                        trial = self._round(self._done + 1)
                    self._done += 1
                    self.trials.append({**trial, "seconds": round(perf_counter() - began, 3)})
                    snapshots.save()
                    self._large = None
                    self._results.add(self._done, self)
                    task.advance(said(trial))
        except BaseException as error:
            self._make_large()
            if not snapshots.restore():
                begun.restore()
            if not self._done or not isinstance(error, KeyboardInterrupt):
                raise
            complete = False
        self._results.finish(self)
        score = self.trials[-1]["score"]
        return Result(self.bound_model, self.masks, score, self.sparsities, self.trials, complete)

    # --- results --------------------------------------------------------------------------

    @property
    def sparsities(self) -> dict[str, float]:
        """The ratio of its weights that each layer has lost, masked or removed."""
        return {
            name: 1.0
            - (self._weights_of(name).numel() - wrapper.masked_count(wrapper.target))
            / self._sizes[name]
            for name, wrapper in self.get_modules_wrapper().items()
        }

    def get_best_result(
        self,
    ) -> tuple[int, nn.Module, Masks, float | None, list[dict[str, Any]]]:
        """Return number, model, masks, score and config of the last complete round.

        The model is a copy without wrappers, made small if there is a `dummy_input`; the masks are
        those still in force.
        """
        if not self._done:
            raise PruneError("There is no result yet: call compress() or run() first.")
        model, masks = self._finished()
        if self.speedup:
            masks = {n: t for n, t in masks.items() if not all(bool(m.all()) for m in t.values())}
        return self._done - 1, model, masks, self.trials[-1]["score"], self.reached_config

    # --- state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the model after the last complete round, small or masked."""
        with tempfile.TemporaryDirectory() as folder, self.plain() as model:
            file = Path(folder) / "model.safetensors"
            save_pruned(model, file)
            content = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
        return {
            "done": self._done,
            "model": content,
            "masks": self._base,
            "left": dict(self._left),
            "trials": json.dumps(self.trials),
            "searches": json.dumps(self.searches),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume from a state, with a dense model or one of the same size.

        Args:
            state_dict: What `state_dict()` returned.
        """
        missing = {"done", "model", "masks", "left", "trials", "searches"} - set(state_dict)
        if missing:
            raise ConfigError(
                f"The state has no {min(missing)!r}; it is not what state_dict() of an "
                "AutoCompressPruner returned."
            )
        self._let_go()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            file.write_bytes(state_dict["model"].numpy().tobytes())
            load_pruned(self.bound_model, file)
        self._wrap_again(state_dict["masks"])
        self._done, self._left = state_dict["done"], dict(state_dict["left"])
        self.trials = Trials(json.loads(state_dict["trials"]))
        self.searches = [Trials(trials) for trials in json.loads(state_dict["searches"])]

    def _make_snapshots(self, path: str | PathLike[str] | None) -> Snapshots:
        algorithm = self.pruning_algorithm
        run = {
            "schedule": type(self).__name__,
            "pruning_algorithm": algorithm if isinstance(algorithm, str) else algorithm.__name__,
            "rounds": self.rounds,
            "speedup": self.speedup,
            "seed": self.seed,
            "target": self.target,
            "weights": sum(self._sizes.values()),
            "search": {name: self._search.get(name) for name in ("optimize_mode", *SEARCH)},
            "admm": {
                "rho": self.rho,
                **{name: self._admm.get(name) for name in ("iterations", "training_epochs")},
            },
            "config_list": json.loads(json.dumps(list(self.config_list), default=str)),
        }
        return Snapshots(path, run, {"autocompress": self})
