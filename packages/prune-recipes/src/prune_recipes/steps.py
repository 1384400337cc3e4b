"""The steps of a run. Each begins with the files of the step before, and ends with files.

So it makes no difference whether a process has made the step before or found it done: the model is
built, and filled from the file. That is what makes a run that was killed end as any other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prune_core import (
    export,
    load_masks,
    load_pruned,
    prune,
    save_masks,
    save_pruned,
    shrink,
    unwrap,
)
from prune_core.compressed import model_of
from prune_core.errors import ConfigError, PruneError, shown
from prune_core.files import replacing
from prune_core.masking import Masks
from prune_core.registry import get_entry
from prune_recipes import loading
from prune_recipes.checks import removes
from prune_recipes.code import function_of, made
from prune_recipes.folder import RunFolder, write_json
from prune_recipes.options import options_of
from prune_recipes.plan import Step, steps_of
from prune_recipes.recipe import Algorithm, Recipe, Shrink
from prune_recipes.training import seed_of, train
from prune_report import from_shrink, of_search
from prune_toolkit.running.random_state import seeded

__all__ = ["DOCUMENT", "MASKS", "MODEL", "SEARCH", "Run"]

MODEL, MASKS = "model.safetensors", "masks.safetensors"
DOCUMENT, SEARCH = "document.json", "search.json"


@dataclass
class Run:
    """What all steps of a run share.

    Args:
        recipe: The recipe.
        beside: The folder of its file, for the paths in it.
        folder: The folder of the run.
    """

    recipe: Recipe
    beside: Path
    folder: RunFolder
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = steps_of(self.recipe)

    # --- what steps begin with ------------------------------------------------------------------

    @cached_property
    def template(self) -> nn.Module:
        """The dense model as the recipe's code makes it, once for each start."""
        with seeded(seed_of(self.recipe.seed, "model")):
            return loading.load_model(self.recipe, self.beside)

    @cached_property
    def inputs(self) -> Any:
        """The example inputs."""
        with seeded(seed_of(self.recipe.seed, "inputs")):
            return loading.load_inputs(self.recipe, self.beside)

    def model_after(self, step: Step) -> nn.Module:
        """Build the model as a step has left it."""
        model = copy.deepcopy(self.template)
        load_pruned(model, self.folder.step(step.name) / MODEL)
        return model.to(self.recipe.device).eval()

    def masks_after(self, step: Step) -> Masks:
        """Return the masks that are in force after a step."""
        file = self.folder.step(step.name) / MASKS
        return load_masks(file) if file.is_file() else {}

    def step_of(self, *kinds: str, before: Step | None = None) -> Step | None:
        """Return the last step of some kinds."""
        until = len(self.steps) if before is None else self.steps.index(before)
        return next((s for s in reversed(self.steps[:until]) if s.kind in kinds), None)

    def before(self, step: Step) -> Step:
        """Return the last step before this one that has changed the model."""
        until = self.steps.index(step)
        return next(s for s in reversed(self.steps[:until]) if s.changes)

    # --- doing them -----------------------------------------------------------------------------

    def do(self, step: Step) -> None:
        """Do a step, and put all that it has made on the disk at once."""
        began = perf_counter()
        with self.folder.doing(step.name) as into:
            with seeded(seed_of(self.recipe.seed, step.name)):
                if step.changes:
                    model, masks, result = self._changed(step, into)
                    save_pruned(model, into / MODEL)
                    if masks:
                        save_masks(into / MASKS, masks)
                    result |= self._figures(model, step)
                else:
                    result = self._exported(step, into)
            result["seconds"] = perf_counter() - began
            write_json(into / "result.json", result)

    def _changed(self, step: Step, into: Path) -> tuple[nn.Module, Masks, dict[str, Any]]:
        if step.kind == "dense":
            return copy.deepcopy(self.template), {}, {}
        model, masks = self.model_after(self.before(step)), self.masks_after(self.before(step))
        match step.kind:
            case "prune":
                return self._pruned(model, masks, self.recipe.prune[step.at], into)
            case "shrink":
                return self._shrunk(model, masks, into)
            case "recover":
                return model, masks, self._recovered(model, masks)
        training = self.recipe.train if step.kind == "train" else self.recipe.finetune
        assert training is not None
        seed, kept = self.recipe.seed, into / "kept"
        epochs = train(model, training, step.kind, seed=seed, kept=kept, masks=masks)
        return model, masks, {"epochs": epochs}

    def _pruned(
        self, model: nn.Module, before: Masks, algorithm: Algorithm, into: Path
    ) -> tuple[nn.Module, Masks, dict[str, Any]]:
        said = algorithm
        options = dict(said.options)
        entry = get_entry("pruner", said.algorithm, "torch")
        taken = options_of(entry).taken
        if removes(entry):
            # Theirs returns a loss, and the recipe's says how good a model is.
            taken = {name: option for name, option in taken.items() if name != "evaluate"}
        if said.reconstruct is not None:
            options["reconstruct"] = said.reconstruct
        if said.count is not None:
            options["count"] = said.count
        options |= self._functions(taken, into)
        if said.config_list is not None:
            pruned: Any = self._by_rules(model, said, options, taken, into)
        else:
            if said.targets is not None:
                options["targets"] = said.targets
            pruned = prune(
                model,
                said.algorithm,
                sparsity=said.sparsity,
                target=said.target,
                example_inputs=self.inputs,
                exclude=said.exclude,
                **options,
            )
        if removes(entry):
            _write(into / DOCUMENT, from_shrink(pruned[1]).to_json())
            return model_of(pruned), before, {"said": str(pruned[1])}
        masks = {n: {t: m.bool().cpu() for t, m in each.items()} for n, each in pruned[1].items()}
        model = unwrap(model_of(pruned)).eval()
        return model, _both(before, masks), {"masked": _zeros(masks)}

    def _functions(self, taken: Mapping[str, Any], into: Path) -> dict[str, Any]:
        """Return the recipe's functions that an algorithm takes, and where it keeps its state."""
        recipe, functions = self.recipe, dict[str, Any]()
        if "calibrate" in taken:
            if recipe.calibrate is not None:
                functions["calibrate"] = function_of(recipe.calibrate, "calibrate")
            elif recipe.data is not None:
                functions["calibrate"] = self._running()
        if "finetune" in taken and recipe.finetune is not None:
            functions["finetune"] = self._finetuning()
        if "evaluate" in taken and recipe.evaluate is not None:
            functions["evaluate"] = lambda model: _single(self._quality(model))
        if "checkpoint" in taken:
            kept = into / "kept"
            kept.mkdir(exist_ok=True)
            # One-shot pruners keep a folder, schedules a file.
            functions["checkpoint"] = kept / "checkpoint"
        elif "experiment_data_dir" in taken:
            functions["experiment_data_dir"] = into / "kept"
        return functions

    def _running(self) -> Callable[[nn.Module], None]:
        from prune_speedup.algorithm import running

        said = self.recipe.data
        assert said is not None
        with seeded(seed_of(self.recipe.seed, "data")):
            data = made(said.call, said.arguments, "data")
        if not isinstance(data, Tensor | Mapping | str) and hasattr(data, "__iter__"):
            data = [loading.on_device(each, self.recipe.device) for each in data]
        run: Callable[[nn.Module], None] = running(data)
        return run

    def _finetuning(self) -> Callable[[nn.Module], None]:
        """Return what a schedule trains with between its rounds, which keeps its own state."""
        said = self.recipe.finetune
        assert said is not None

        def finetune(model: nn.Module) -> None:
            function = function_of(said, "finetune", ("optimizer", "epoch"))
            optimizer = None
            if said.optimizer is not None:
                make = made_class(said.optimizer.call)
                optimizer = make(model.parameters(), **said.optimizer.arguments)
            for epoch in range(said.epochs or 1):
                function(model, optimizer, epoch)

        return finetune

    def _by_rules(
        self,
        model: nn.Module,
        said: Algorithm,
        options: dict[str, Any],
        taken: Mapping[str, Any],
        into: Path,
    ) -> Any:
        pruner_class = get_entry("pruner", said.algorithm, "torch").load()
        coupled = options.get("mode") in (None, "dependency_aware", "global")
        if "dummy_input" in taken and coupled:
            options["dummy_input"] = self.inputs
        pruner = pruner_class(model, said.config_list, **options)
        try:
            closes = getattr(pruner_class, "granularity", "") == ""
            compressed = pruner.compress(self.inputs) if closes else pruner.compress()
            if hasattr(pruner, "trials"):
                _write(into / SEARCH, of_search(pruner).to_json())
            return compressed
        except BaseException:
            pruner.unwrap()
            raise

    def _shrunk(
        self, model: nn.Module, masks: Masks, into: Path
    ) -> tuple[nn.Module, Masks, dict[str, Any]]:
        said = self.recipe.shrink if isinstance(self.recipe.shrink, Shrink) else Shrink()
        report = shrink(
            model,
            self.inputs,
            masks,
            constants=said.constants,
            tolerance=said.tolerance,
            measure=said.measure,
        )
        _write(into / "shrink.txt", f"{report}\n\n{report.table()}\n")
        _write(into / DOCUMENT, from_shrink(report).to_json())
        return report.model, report.masks, {"difference": report.difference}

    def _recovered(self, model: nn.Module, masks: Masks) -> dict[str, Any]:
        from prune_recover import recover

        said = self.recipe.recover
        assert said is not None
        with seeded(seed_of(self.recipe.seed, "recover.data")):
            data = made(said.data.call, said.data.arguments, "recover.data")
        validation = None
        if said.validation is not None:
            with seeded(seed_of(self.recipe.seed, "recover.validation")):
                call, arguments = said.validation.call, said.validation.arguments
                validation = made(call, arguments, "recover.validation")
        teacher = self.step_of("train", "dense")
        assert teacher is not None
        report = recover(
            model,
            data,
            teacher=self.model_after(teacher),
            steps=said.steps,
            epochs=said.epochs,
            learning_rate=said.learning_rate,
            validation=validation,
            seed=seed_of(self.recipe.seed, "recover"),
            keep=masks or False,
            **said.options,
        )
        model.eval()
        return {"said": str(report)}

    def _exported(self, step: Step, into: Path) -> dict[str, Any]:
        said = self.recipe.export[step.at]
        name = said.file or f"model.{said.format}"
        format_ = said.format
        model = self.model_after(self.before(step))
        path = export(
            model, self.folder.path / "exports" / name, self.inputs, format=format_, **said.options
        )
        return {"file": str(path.relative_to(self.folder.path)), "format": format_}

    # --- what is noted of each ------------------------------------------------------------------

    def _figures(self, model: nn.Module, step: Step) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
            "zeros": sum(p.numel() - int(p.count_nonzero()) for p in model.parameters()),
            "flops": self._flops(model),
        }
        if self.recipe.evaluate is not None and not (
            step.kind == "dense" and self.recipe.train is not None
        ):
            figures["quality"] = self._quality(model)
        return figures

    def _flops(self, model: nn.Module) -> int:
        from prune_speedup.torch.record.inputs import call

        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            try:
                call(model, self.inputs)
            except Exception as error:
                raise ConfigError(
                    f"The model does not run on the inputs of the recipe: "
                    f"{type(error).__name__}: {error}"
                ) from error
        return int(counter.get_total_flops())

    def _quality(self, model: nn.Module) -> dict[str, float]:
        said = self.recipe.evaluate
        assert said is not None
        model.eval()
        with torch.no_grad(), seeded(seed_of(self.recipe.seed, "evaluate")):
            try:
                found = function_of(said, "evaluate")(model)
            except PruneError:
                raise
            except Exception as error:
                raise PruneError(
                    f"evaluate: {said.call} failed: {type(error).__name__}: {error}"
                ) from error
        scores = found if isinstance(found, Mapping) else {said.call.rpartition(":")[2]: found}
        try:
            return {str(name): float(score) for name, score in scores.items()}
        except (TypeError, ValueError):
            raise ConfigError(
                f"evaluate: {said.call} returned {shown(found)}; it must return a number, or a "
                "dict of them by name."
            ) from None


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def made_class(call: str) -> Any:
    """Import a class."""
    from prune_recipes.code import load

    return load(call, "finetune.optimizer")


def _single(scores: Mapping[str, float]) -> float:
    return next(iter(scores.values()))


def _both(one: Masks, other: Masks) -> Masks:
    """Keep what both masks keep."""
    merged = {name: dict(tensors) for name, tensors in one.items()}
    for name, tensors in other.items():
        there = merged.setdefault(name, {})
        for tensor, mask in tensors.items():
            there[tensor] = mask & there[tensor].bool() if tensor in there else mask
    return merged


def _zeros(masks: Masks) -> int:
    return sum(
        mask.numel() - int(mask.count_nonzero())
        for tensors in masks.values()
        for mask in tensors.values()
    )
