"""Find the sparsity at which a model meets its budget."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, SpeedupError
from prune_speedup.budget.costs import Costs, Workload, workload_of, workload_of_plan
from prune_speedup.budget.ratios import BUDGETS, Ratios, budgets, check_target, sparsity_for
from prune_speedup.budget.rehearsal import rehearse
from prune_speedup.engine.plan import make_plan
from prune_speedup.pruning.dependency_aware import DependencyAwareAllocator
from prune_speedup.torch.cost import cost_of
from prune_speedup.torch.measure import timed_call
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.rules import has_rule
from prune_speedup.torch.speedup import shrink
from prune_toolkit.basic import BasicPruner

__all__ = ["BUDGETS", "budgets", "check_target", "fit_budget", "relative_latency"]

REPETITIONS = 7


def fit_budget(
    pruner: BasicPruner,
    metrics: Mapping[str, Tensor],
    target: Ratios,
    example_inputs: Any,
    constants: str = "exact",
) -> float:
    """Set the least sparsity that meets all budgets, and see to it that `shrink` would meet them.

    Every group of units loses the same ratio, or all are ranked together where the allocator
    ranks across groups.

    Args:
        pruner: A pruner whose allocator is dependency-aware.
        metrics: Its scores.
        target: What may be left, such as `{"flops": 0.5}`.
        example_inputs: What the model is run with.
        constants: What `shrink` will be told; unless that is `"zero"`, channels that it would keep
            are neither counted nor pruned.

    Returns:
        The sparsity, which is also set on the pruner's wrappers.

    Raises:
        ConfigError: When even the most that can be pruned does not meet a budget, or `shrink`
            would leave more than was planned.
    """
    check_target(target)
    allocator = pruner.sparsity_allocator
    assert isinstance(allocator, DependencyAwareAllocator)
    allocator.constants, allocator.as_one = constants, True
    planned = _probe(pruner, allocator, metrics, target, example_inputs)
    reports: list[SpeedupReport] = []

    def really(sparsity: float) -> dict[str, float]:
        _set_sparsity(pruner, sparsity)
        left, report = _really_left(pruner, allocator, metrics, target, example_inputs)
        reports.append(report)
        return left

    return sparsity_for(
        target,
        planned,
        really,
        stays=lambda: _because(allocator),
        missed=lambda left: _missed(target, left, reports[-1]),
    )


def _because(allocator: DependencyAwareAllocator) -> str:
    """What stays besides, in a few words."""
    found = allocator.choice
    names = list(dict.fromkeys([*found.fixed, *found.held, *found.spared]))
    shown = ", ".join(map(repr, names[:3])) + (" and others" if names[3:] else "")
    return f"; {shown} {'keep all their channels' if names[1:] else 'keeps all'}" if names else ""


def _really_left(
    pruner: BasicPruner,
    allocator: DependencyAwareAllocator,
    metrics: Mapping[str, Tensor],
    target: Ratios,
    example_inputs: Any,
) -> tuple[dict[str, float], SpeedupReport]:
    """Shrink the model with the masks that are to come, look at what is left, and put it back."""
    masks = allocator.generate_sparsity(metrics)
    plan = make_plan(allocator.coupling.units.labelling, ())
    costs, small = Costs(target.keys() - set(BUDGETS), workload_of_plan(plan)), list[Workload]()

    def look(model: nn.Module) -> None:
        if costs:
            small.append(workload_of(trace(model, example_inputs, known=has_rule)))

    with pruner.plain() as model:
        for name, tensors in allocator.coupling.closed(masks).items():
            known = masks.setdefault(name, {})
            known |= {leaf: mask & known.get(leaf, mask) for leaf, mask in tensors.items()}
        try:
            report = rehearse(model, example_inputs, masks, allocator.constants, look)
        except SpeedupError as error:
            raise ConfigError(
                f"target is {dict(target)!r}, and shrink() could not remove what would be masked: "
                f"{error}. Exclude those layers."
            ) from error
    dense = cost_of(plan).parameters
    unread = report.parameters[0] - dense
    left = {
        "parameters": (report.parameters[1] - unread) / dense,
        "flops": report.flops[1] / max(1, report.flops[0]),
        **(costs.left(small[0]) if small else {}),
    }
    return {name: left[name] for name in target.keys() & left.keys()}, report


def _missed(target: Ratios, left: Ratios, report: SpeedupReport) -> str:
    name = max(left, key=lambda name: left[name] - target[name])
    stops = f"It stops at {report.returned[0]}." if report.returned else ""
    said = " ".join(filter(None, [report.shortfall, stops]))
    return (
        f"target[{name!r}] is {target[name]}, and shrink() would leave {left[name]:.3f}. "
        f"{said or 'Some of what is masked stays.'} Exclude those layers, or ask for less."
    )


def _set_sparsity(pruner: BasicPruner, sparsity: float) -> None:
    for wrapper in pruner.get_modules_wrapper().values():
        for key in ("sparsity", "sparsity_per_layer", "total_sparsity"):
            wrapper.config[key] = sparsity


def _probe(
    pruner: BasicPruner,
    allocator: DependencyAwareAllocator,
    metrics: Mapping[str, Tensor],
    target: Ratios,
    example_inputs: Any,
) -> Callable[[float], dict[str, float]]:
    """Return a function that says what a sparsity leaves of each budget."""
    labelling = allocator.coupling.units.labelling
    dense = cost_of(make_plan(labelling, ()))
    costs = Costs(target.keys() - set(BUDGETS), workload_of_plan(make_plan(labelling, ())))

    def left(sparsity: float) -> dict[str, float]:
        _set_sparsity(pruner, sparsity)
        plan = make_plan(labelling, chosen := allocator.choose(metrics))
        cost = cost_of(plan)
        ratios = {
            "parameters": cost.parameters / dense.parameters,
            "flops": cost.flops / max(1, dense.flops),
            **(costs.left(workload_of_plan(plan)) if costs else {}),
        }
        if "latency" in target:
            units = [allocator.coupling.units.unit(label) for label in chosen]
            with pruner.plain() as model:
                small = copy.deepcopy(model)
                shrink(small, example_inputs, units=units, verify=False)
                ratios["latency"] = relative_latency(small, model, example_inputs)
        return {name: ratios[name] for name in target}

    return left


def relative_latency(small: nn.Module, large: nn.Module, inputs: Any) -> float:
    """Time two models in turns, so that a machine that changes its pace does so for both.

    Other work on the machine only ever adds time, so the fastest run of each counts.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    training = [(module, module.training) for module in large.modules()]
    large.eval()
    small.eval()
    try:
        with torch.no_grad():
            for repetition in range(REPETITIONS + 1):
                for is_small, model in ((True, small), (False, large)):
                    seconds = timed_call(model, inputs)
                    if repetition:  # the first is for warming up
                        times[is_small].append(seconds)
    finally:
        for module, flag in training:
            module.training = flag
    return min(times[True]) / min(times[False])
