"""Find a way of taking blocks out of a model that leaves it running, and running right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.gc_pause import collecting_later
from prune_speedup.torch.depth.calls import Seen
from prune_speedup.torch.depth.depth_config import carriers, configs_in, fitting
from prune_speedup.torch.depth.find import Block, Blocks
from prune_speedup.torch.depth.proof import Meant, Prover, alike, apart_with_cache
from prune_speedup.torch.depth.report import RemovalReport
from prune_speedup.torch.depth.steps import Step, instead_of
from prune_speedup.torch.measure import size_of
from prune_speedup.torch.model_config.build import built_like, run_built, same_outputs
from prune_speedup.torch.model_config.numbers import PER_LAYER, is_config, overrides_of
from prune_speedup.torch.record.inputs import call, found_in
from prune_speedup.torch.record.isolation import untouched
from prune_speedup.torch.saving import refuse_saving
from prune_speedup.torch.surgery import record_step
from prune_speedup.torch.tensors import Snapshot
from prune_toolkit.running.restore import evaluating

__all__ = ["Removal"]


class Removal:
    """Tries one way after the other, each on the model as it was.

    Args:
        model: The model; who makes this puts it back if anything fails.
        example_inputs: What it is run on.
        found: Its blocks.
        original: What it was before.
        tolerance: The largest difference allowed.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        found: Blocks,
        original: Snapshot,
        tolerance: float | None,
    ) -> None:
        self._model, self._inputs, self._original = model, example_inputs, original
        self._seen: dict[str, Seen] = found.seen
        self._found = found
        self._prover = Prover(model, original, found.seen, tolerance)
        with_cache = _with_cache(model, example_inputs)
        # Where the whole model does not go on as it began, nothing can be asked of the smaller one.
        self._cached = with_cache is not None and with_cache <= _CACHE
        self._outputs: Any = None
        self._step = Step()
        self._meant = Meant()
        self._missing = ""

    @collecting_later()
    def removed(
        self, chosen: Sequence[Block], more: Sequence[Any], *, verify: bool
    ) -> RemovalReport:
        """Take out, prove, and say what was done."""
        model = self._model
        report = RemovalReport(model, list(chosen))
        before = sum(each.numel() for each in model.parameters()), size_of(model)
        cases = self._prover.cases(self._inputs, more)
        rows: dict[str, list[Block]] = {}
        alone: list[Block] = []
        for each in chosen:
            parent = each.name.rpartition(".")[0]
            row = model.get_submodule(parent) if each.kind == "block" else None
            if isinstance(row, nn.ModuleList | nn.Sequential):
                rows.setdefault(parent, []).append(each)
            else:
                alone.append(each)
        # Stand-ins come first: modules still have the names that were looked up.
        for each in alone:
            self._attempt([each], self._instead(each))
        for parent, found in rows.items():
            self._attempt(found, self._shorter(parent, found))
        report.comparison = None
        if verify:
            verdict = self._prover.prove(cases, self._meant)
            report.comparison, report.verified = verdict.difference, verdict.inputs
            report.flops = self._found.flops, self._prover.flops
            if self._cached:
                report.cache = _with_cache(model, self._inputs)
        else:
            gone = sum(each.flops for each in chosen)
            report.flops = self._found.flops, self._found.flops - gone
        step = self._step
        self._describe(report, step)
        report.parameters = before[0], sum(each.numel() for each in model.parameters())
        report.bytes = before[1], size_of(model)
        record_step(model, step)
        if report.missing:
            refused = {
                name: report.missing
                for name, module in model.named_modules()
                if callable(getattr(type(module), "save_pretrained", None))
            }
            refuse_saving(model, refused)
        return report

    def _describe(self, report: RemovalReport, step: Step) -> None:
        report.shortened = dict(step.shortened)
        report.stand_ins = {name: instead.kind for name, instead in step.instead.items()}
        for each in self._found:
            now = step.now(each.name)
            if each.kind == "block" and now not in (None, each.name):
                report.renamed[each.name] = str(now)
        self._original.restore()
        old: dict[str, Any] = {}
        for name, settings in step.config.items():
            carrier: Any = self._model.get_submodule(name)
            for keys, _ in settings:
                label = ".".join(map(str, (*filter(None, [name]), *keys)))
                old[label] = _value_at(carrier.config, keys)
        step.apply(self._model)
        for name, settings in step.config.items():
            for keys, value in settings:
                label = ".".join(map(str, (*filter(None, [name]), *keys)))
                report.config[label] = old[label], value
        carries = any(is_config(getattr(m, "config", None)) for m in self._model.modules())
        if carries and step.instead:
            name = next(iter(step.instead))
            self._missing = self._missing or (f"it has no way of saying that {name!r} is not there")
        report.missing = self._missing if carries else ""

    def _attempt(self, found: Sequence[Block], ways: Iterator[Step]) -> None:
        """Go the first way that leaves the model running right on the example."""
        blocks = [each.name for each in found if each.kind == "block"]
        additions = [addition for each in found for addition in each.additions]
        failure: SpeedupError | None = None
        for step in ways:
            meant = Meant(
                [*self._meant.skipped, *blocks],
                [*self._meant.additions, *additions],
                step,
            )
            try:
                self._go(step)
                self._prover.prove(self._prover.cases(self._inputs, ())[:1], meant)
                self._check_cache()
                if not self._is_described(step):
                    continue
            except SpeedupError as error:
                failure = error  # of the last way, which asks least of the model
                continue
            self._step, self._meant = step, meant
            return
        raise failure or SpeedupError(
            f"{found[0].name!r} cannot be taken out: its form cannot be imitated; the model is "
            "left as it was."
        )

    def _go(self, step: Step) -> None:
        """Do all that was done so far, and more, to the model as it was."""
        self._original.restore()
        step.apply(self._model)

    def _check_cache(self) -> None:
        if not self._cached:
            return
        try:
            with_cache = _with_cache(self._model, self._inputs)
        except Exception as error:
            raise SpeedupError(
                "Without these blocks the model does not run on with its cache: "
                f"{type(error).__name__}: {error}; it is left as it was."
            ) from error
        if with_cache is None or not with_cache <= _CACHE:
            raise SpeedupError(
                "Without these blocks, what the model computes with its cache differs from what it "
                f"computes without: by {with_cache} (relative). It tells by the cache of a certain "
                "layer how far it has come. Take out other layers, or a whole block instead of its "
                "attention. The model is left as it was."
            )

    def _instead(self, block: Block) -> Iterator[Step]:
        """Ways of putting stand-ins in the place of a block or a branch."""
        made = {name: instead_of(block.kind, self._seen[name]) for name in block.modules}
        step = replace(self._step, instead={**self._step.instead, **made})
        yield step
        # An attention that is gone leaves a place in the cache empty; let the others move up.
        for row in list(_rows_around(self._model, block.modules[0])):
            yield replace(step, counted=sorted({*step.counted, row}))

    def _shorter(self, parent: str, found: Sequence[Block]) -> Iterator[Step]:
        """Ways of making a list of modules shorter, and stand-ins where there is none."""
        self._original.restore()
        row = self._model.get_submodule(parent)
        keys = [*row._modules]
        gone = {keys.index(each.name.rpartition(".")[2]) for each in found}
        kept = [at for at in range(len(keys)) if at not in gone]
        shorter = replace(
            self._step,
            shortened={**self._step.shortened, parent: kept},
            taken=[*self._step.taken, *(each.name for each in found)],
        )
        counted = replace(shorter, counted=sorted({*shorter.counted, parent}))
        holders = carriers(self._model, parent)
        if holders:
            yield from self._with_config(counted, parent, len(keys), kept)
        for step in (counted, shorter):
            if holders:
                step = replace(step, config=dict(step.config))
                self._missing = ""
            yield step
        instead = {each.name: instead_of(each.kind, self._seen[each.name]) for each in found}
        yield replace(self._step, instead={**self._step.instead, **instead})

    def _with_config(
        self, step: Step, parent: str, before: int, kept: Sequence[int]
    ) -> Iterator[Step]:
        """Ways in which a config may follow: that of the whole model, or of a part of it."""
        try:
            self._go(step)
        except SpeedupError:
            return
        holders = carriers(self._model, parent)
        outermost, *others = holders
        for settings in fitting(holders[outermost], before, kept):
            self._go(step)
            config = {outermost: settings}
            own = {id(each) for each in configs_in(holders[outermost].config)}
            for name in others:
                # A part of a model may carry a config of its own, such as that of a decoder.
                if id(holders[name].config) not in own:
                    config[name] = next(fitting(holders[name], before, kept), [])
            added = {name: [([*k], v) for k, v in found] for name, found in config.items() if found}
            known = step.config
            yield replace(
                step, config={**known, **{n: [*known.get(n, []), *f] for n, f in added.items()}}
            )

    def _is_described(self, step: Step) -> bool:
        """Whether a model built from its config, which has changed, returns the same."""
        self._missing = ""
        if step.config == self._step.config:
            row = next((r for r in step.shortened if r not in self._step.shortened), "")
            if row and carriers(self._model, row):
                self._missing = f"no number in it makes a model with fewer entries in {row!r}"
            return True
        model = self._model
        if not is_config(getattr(model, "config", None)):
            return True
        with untouched(model), evaluating(model), torch.no_grad():
            expected = found_in(call(model, self._inputs))
            try:
                built = built_like(model, {})
                found = found_in(run_built(built, self._inputs, of=model))
            except Exception:
                return False  # a class that looks at its own numbers while it is built
        return same_outputs(*alike(expected, found))


_CACHE = 1e-3


def _with_cache(model: nn.Module, example_inputs: Any) -> float | None:
    """How far a model that goes on from its cache is from itself; None where it has none."""
    try:
        apart = apart_with_cache(model, example_inputs)
    except Exception:
        return None  # it refuses to be asked so, in as many ways as there are models
    return None if apart is None else apart.relative


def _rows_around(model: nn.Module, name: str) -> Iterator[str]:
    """The lists that a module stands in, the innermost first."""
    while name:
        name = name.rpartition(".")[0]
        if isinstance(model.get_submodule(name), nn.ModuleList | nn.Sequential):
            yield name


def _value_at(config: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        if key == PER_LAYER:
            return overrides_of(config)
        config = config[key] if isinstance(key, int) else getattr(config, key)
    return list(config) if isinstance(config, list) else config
