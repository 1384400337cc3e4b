"""Budgets of parameters, FLOPs, latency or registered costs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils._pytree import tree_leaves

from prune_core import ConfigError, Pruner, shrink
from prune_core.amount import number_to_prune
from prune_core.masking import Masks
from prune_schedule.budget.latency_cache import LatencyCache
from prune_schedule.budget.propagate_masks import closed_over
from prune_schedule.run.processes import from_first
from prune_speedup.budget.costs import Costs, workload_of_plan
from prune_speedup.budget.target import BUDGETS, check_target, relative_latency
from prune_speedup.budget.unremovable import makers_of, staying
from prune_speedup.engine.mask_effects import standing
from prune_speedup.engine.plan import Plan, make_plan
from prune_speedup.pruning.coupling import Coupling
from prune_speedup.sparsities.plans import Sparsities
from prune_speedup.torch.cost import cost_of, flops_of
from prune_speedup.torch.masks import flat_masks, zeros_of

__all__ = ["ModelBudget", "coupled_layers"]

# A measured time is never the same twice; halving the interval further would follow the noise.
PROBES, PROBES_MEASURED = 40, 6


class ModelBudget:
    """What may be left of a model: parameters, FLOPs, latency, or a cost that a plugin registers.

    What is left depends on how many channels each layer loses and not on which, so nothing has to
    be scored to know it: the graph of the forward says every shape after the removal. A latency
    is measured, on a small copy of the model, once for each number of channels.

    Args:
        pruner: The pruner that masks the model.
        target: What may be left, such as `{"flops": 0.5}`.
        example_inputs: An input of the model: a tensor, a tuple or a dict.
        caps: The most that each layer may lose.
        measured: The latencies known so far, by the channels lost.
    """

    def __init__(
        self,
        pruner: Pruner,
        target: Mapping[str, float],
        example_inputs: Any,
        caps: Mapping[str, float],
        measured: LatencyCache | None = None,
    ) -> None:
        check_target(target)
        self.target = dict(target)
        self.measured = LatencyCache(None) if measured is None else measured
        self._counted: dict[str, dict[str, float]] = {}
        self._pruner, self._inputs, self._caps = pruner, example_inputs, caps
        with pruner.plain() as model:
            self.coupling = Coupling(model, example_inputs)
        self._labelling = self.coupling.units.labelling
        self._layers = list(pruner.get_modules_wrapper())
        self._makers = _makers(self.coupling, self._layers)
        self.groups = _connected(self._makers.values(), self._layers)
        self.dense = cost_of(make_plan(self._labelling, ()))
        kinds = target.keys() - set(BUDGETS)
        self._costs = Costs(kinds, workload_of_plan(make_plan(self._labelling, ())))
        self._name = self._named()

    # --- what is left ---------------------------------------------------------------------

    def left(self, sparsities: Mapping[str, float]) -> dict[str, float]:
        """Return what sparsities leave of each kind that the target names."""
        lost = self._lost(sparsities)
        found = self.known(sparsities)
        if "latency" in self.target:
            key = f"{self._name}: {_key(lost)}"
            if key not in self.measured:
                # Of several processes, the first one's clock counts for all.
                self.measured.keep({key: from_first(self._latency(lost))})
            found["latency"] = self.measured[key]
        return {kind: found[kind] for kind in self.target}

    def known(self, sparsities: Mapping[str, float]) -> dict[str, float]:
        """Return what sparsities leave of what can be counted."""
        lost = self._lost(sparsities)
        key = _key(lost)
        if key not in self._counted:
            self._counted[key] = self.counted(self._plan(lost))
        return dict(self._counted[key])

    def flops_in(self, layer: str) -> int:
        """Return the floating-point operations of one layer of the dense model."""
        graph = self._labelling.graph
        calls = [call for call in graph.calls if call.module == layer]
        return flops_of(replace(graph, calls=calls))

    def counted(self, plan: Plan) -> dict[str, float]:
        """Return what a plan leaves of what can be counted."""
        cost = cost_of(plan)
        return {
            "parameters": cost.parameters / self.dense.parameters,
            "flops": cost.flops / max(1, self.dense.flops),
            **(self._costs.left(workload_of_plan(plan)) if self._costs else {}),
        }

    def _lost(self, sparsities: Mapping[str, float]) -> list[int]:
        """Return how many units of each group go; its layers lose the least that any is told."""
        return [
            number_to_prune(min(sparsities[name] for name in makers), len(labels))
            for labels, makers in self._makers.items()
        ]

    def _plan(self, lost: Sequence[int]) -> Plan:
        return make_plan(self._labelling, self._units(lost))

    def _units(self, lost: Sequence[int]) -> list[int]:
        return [unit for units, n in zip(self._makers, lost, strict=True) for unit in units[:n]]

    def _named(self) -> str:
        """Return a short digest of all that the speed of the model depends on."""
        with self._pruner.plain() as model:
            made = [f"{name} {type(module).__name__}" for name, module in model.named_modules()]
            made += [f"{name} {tuple(p.shape)}" for name, p in model.named_parameters()]
        made += [f"{tuple(x.shape)}" for x in tree_leaves(self._inputs) if hasattr(x, "shape")]
        text = f"{made} {self.dense.flops}"
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    def _latency(self, lost: Sequence[int]) -> float:
        if not any(lost):
            return 1.0
        units = [self.coupling.units.unit(number) for number in self._units(lost)]
        with self._pruner.plain() as model:
            small = copy.deepcopy(model)
            shrink(small, self._inputs, units=units, verify=False)
            return relative_latency(small, model, self._inputs)

    def check(self, masks: Masks, sparsities: Mapping[str, float]) -> None:
        """Refuse masks of which less can be removed than the plan counts on."""
        lost = self._lost(sparsities)
        promised = self.counted(self._plan(lost))
        for kind, found in self._removable(masks).items():
            if found > promised[kind] + 1e-9:
                raise ConfigError(
                    f"Of the masks that {type(self._pruner).__name__} makes, less can be removed "
                    f"than the target counts on: {found:.1%} of the {kind} would be left, and not "
                    f"{promised[kind]:.1%}, because channels of {self._staying(masks, lost)} stay. "
                    "A budget needs an algorithm that prunes whole output channels, and the same "
                    "ones in layers that belong together, such as 'l1'; and channels that a layer "
                    "normalisation runs over, or that something adds to that no pruner masks, have "
                    "to be excluded."
                )

    def shortfall(self, sparsities: Mapping[str, float]) -> str | None:
        """Say what the masks in force leave more than the target, or None if they meet it."""
        found = self._removable(self._pruner.masks)
        for kind, ratio in self.target.items():
            if found.get(kind, 0.0) > ratio + 1e-9:
                stays = self._staying(self._pruner.masks, self._lost(sparsities))
                return (
                    f"{found[kind]:.1%} of the {kind} will be left, where {ratio:.1%} was asked "
                    f"for: channels of {stays} stay"
                )
        return None

    def _removable(self, masks: Masks) -> dict[str, float]:
        """Return what is left, of what can be counted, when all goes that may."""
        with self._pruner.plain() as model:
            flat = flat_masks(model, masks | self.closing(masks))
            zeros = zeros_of(model, self._labelling.graph, flat)
            chosen = standing(self._labelling, zeros).removable
        return self.counted(make_plan(self._labelling, chosen))

    def _staying(self, masks: Masks, lost: Sequence[int]) -> str:
        """Name the layers some of whose masked channels cannot be removed."""
        with self._pruner.plain() as model:
            closed = masks | self.closing(masks)
            stays = staying(self.coupling, model, closed, self._units(lost))
        return ", ".join(map(repr, makers_of(self.coupling, stays))) or "some layers"

    def closing(self, masks: Masks) -> Masks:
        """Return masks together with those of what follows them, such as a normalisation."""
        with self._pruner.plain():
            return closed_over(self.coupling, masks)

    # --- what meets the target ------------------------------------------------------------

    def fitted(
        self,
        shares: Mapping[str, float],
        floors: Mapping[str, float],
        progress: float = 1.0,
    ) -> Sparsities:
        """Return sparsities in the proportion of `shares` that meet the target."""
        wanted = {kind: max(ratio, 1.0 - progress) for kind, ratio in self.target.items()}
        weights = {
            name: max(max(shares[member] for member in group), 1e-9)
            for group in self.groups
            for name in group
        }

        def pruned(scale: float) -> Sparsities:
            return dict.fromkeys(self._layers, 0.0) | {
                name: min(max(scale * weight, floors[name]), self._caps[name])
                for name, weight in weights.items()
            }

        between = self._least(
            lambda scale: self._meets(pruned(scale), wanted),
            max((self._caps[name] / weight for name, weight in weights.items()), default=0.0),
        )
        if between is None:
            raise self._refusal(self.left(pruned(float("inf"))), wanted)
        below, plan = map(pruned, between)
        if "latency" not in self.target:
            # Groups that get to their next channel at the same scale need not all lose it.
            for group in self.groups:
                fewer = plan | {name: below[name] for name in group}
                plan = fewer if self._meets(fewer, wanted) else plan
        return self._snapped(plan)

    def reduced(
        self, sparsities: Mapping[str, float], group: Sequence[str], kind: str, wanted: float
    ) -> Sparsities | None:
        """Prune one group just so much more that no more than `wanted` of a kind is left."""
        cap = min(self._caps[name] for name in group)
        start = max(sparsities[name] for name in group)

        def pruned(more: float) -> Sparsities:
            return {**sparsities, **dict.fromkeys(group, min(cap, start + more))}

        if start >= cap:
            return None
        between = self._least(
            lambda more: self._meets(pruned(more), {kind: wanted}),
            cap - start,
        )
        return None if between is None else self._snapped(pruned(between[1]))

    def _snapped(self, sparsities: Sparsities) -> Sparsities:
        """Say the same numbers of channels in the simplest ratios."""
        plain = dict(sparsities)
        lost = self._lost(sparsities)
        for group in self.groups:
            counts = [
                (count, len(labels))
                for (labels, makers), count in zip(self._makers.items(), lost, strict=True)
                if set(makers) <= set(group)
            ]
            if len(counts) == 1:
                plain |= dict.fromkeys(group, counts[0][0] / counts[0][1])
        return plain if self._lost(plain) == lost else dict(sparsities)

    def _meets(self, sparsities: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
        left = self.left(sparsities)
        return all(left[kind] <= ratio + 1e-12 for kind, ratio in wanted.items())

    def _least(self, enough: Callable[[float], bool], most: float) -> tuple[float, float] | None:
        """Return the least number up to `most` that is enough, after one that is not, or None."""
        if enough(0.0):
            return 0.0, 0.0
        if not enough(most):
            return None
        low, high = 0.0, most
        for _ in range(PROBES_MEASURED if "latency" in self.target else PROBES):
            middle = (low + high) / 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return low, high

    def _refusal(self, reached: Mapping[str, float], wanted: Mapping[str, float]) -> ConfigError:
        kind = max(wanted, key=lambda kind: reached[kind] - wanted[kind])
        return ConfigError(
            f"target[{kind!r}] is {self.target[kind]:g}, and with as much gone as may go "
            f"{reached[kind]:.3f} is left. Let more layers be pruned, raise "
            "'max_sparsity_per_layer', or ask for less."
        )


def _key(lost: Sequence[int]) -> str:
    return " ".join(map(str, lost))


def coupled_layers(pruner: Pruner, example_inputs: Any) -> list[list[str]]:
    """Return the layers of a pruner that can lose channels, those together that can only do so."""
    wrappers = pruner.get_modules_wrapper()
    layers = list(wrappers)
    # What scales channels, such as batch norm, makes none, and is tied to no other layer.
    scales = [[n] for n, w in wrappers.items() if w.module.get_parameter(w.target).ndim < 2]
    with pruner.plain() as model:
        made = _makers(Coupling(model, example_inputs), layers).values()
    return _connected([*made, *scales], layers)


def _makers(coupling: Coupling, layers: Sequence[str]) -> dict[tuple[int, ...], list[str]]:
    """Return, for each group of units that may go, the layers that make its channels.

    A group that also belongs to a layer which is not pruned stays whole.
    """
    return {
        group.labels: made
        for group in coupling.units.groups
        if (made := [producer.name for producer in coupling.of_group(group)])
        and set(made) <= set(layers)
    }


def _connected(sets: Any, order: Sequence[str]) -> list[list[str]]:
    """Return the layers that are tied to each other, directly or through others, in their order."""
    groups: list[set[str]] = []
    for members in sets:
        together = set(members)
        apart = []
        for group in groups:
            if group & together:
                together |= group
            else:
                apart.append(group)
        groups = [*apart, together]
    found = [[name for name in order if name in group] for group in groups]
    return sorted(found, key=lambda group: order.index(group[0]))
