"""Budgets of parameters, FLOPs, latency or registered costs, whatever the framework."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import prod

from prune_core.amount import number_to_prune
from prune_core.errors import ConfigError
from prune_speedup.budget.costs import Cost, Costs, workload_of_plan
from prune_speedup.budget.ratios import BUDGETS, check_target
from prune_speedup.engine.plan import Plan, make_plan
from prune_speedup.search.latency_cache import LatencyCache
from prune_speedup.search.pieces import Coupled, connected, makers_of_groups
from prune_speedup.search.plans import Sparsities

__all__ = ["PlannedBudget", "weights_left"]

# A measured time is never the same twice; halving the interval further would follow the noise.
PROBES, PROBES_MEASURED = 40, 6


class PlannedBudget:
    """What may be left of a model: parameters, FLOPs, latency, or a cost that a plugin registers.

    What is left depends on how many channels each layer loses and not on which, so nothing has to
    be scored to know it: the graph of the forward says every shape after the removal. A latency
    is measured, on a small copy of the model, once for each number of channels.

    Args:
        coupling: Which channels of the model belong together.
        layers: The layers that are masked.
        target: What may be left, such as `{"flops": 0.5}`.
        caps: The most that each layer may lose.
        cost_of: Counts what a plan leaves.
        model_name: Names all that the speed of the model depends on.
        measured: The latencies known so far, by the channels lost.
    """

    def __init__(
        self,
        coupling: Coupled,
        layers: Sequence[str],
        target: Mapping[str, float],
        caps: Mapping[str, float],
        cost_of: Callable[[Plan], Cost],
        model_name: str,
        measured: LatencyCache | None = None,
    ) -> None:
        check_target(target)
        self.target = dict(target)
        self.measured = LatencyCache(None) if measured is None else measured
        self._counted: dict[str, dict[str, float]] = {}
        self._layers, self._caps, self._name = list(layers), caps, model_name
        self._labelling, self._cost_of = coupling.units.labelling, cost_of
        self._makers = makers_of_groups(coupling, self._layers)
        self.groups = connected(self._makers.values(), self._layers)
        nothing = make_plan(self._labelling, ())
        self.dense = cost_of(nothing)
        self._costs = Costs(target.keys() - set(BUDGETS), workload_of_plan(nothing))

    # --- what is left ---------------------------------------------------------------------

    def left(self, sparsities: Mapping[str, float]) -> dict[str, float]:
        """Return what sparsities leave of each kind that the target names."""
        found = self.known(sparsities)
        if "latency" in self.target:
            lost = self._lost(sparsities)
            key = f"{self._name}: {_key(lost)}"
            if key not in self.measured:
                self.measured.keep({key: self._latency(lost) if any(lost) else 1.0})
            found["latency"] = self.measured[key]
        return {kind: found[kind] for kind in self.target}

    @abstractmethod
    def _latency(self, lost: Sequence[int]) -> float:
        """Measure a small model, in relation to the dense one.

        Args:
            lost: How many units of each group it has lost.
        """

    def known(self, sparsities: Mapping[str, float]) -> dict[str, float]:
        """Return what sparsities leave of what can be counted."""
        lost = self._lost(sparsities)
        key = _key(lost)
        if key not in self._counted:
            self._counted[key] = self.counted(self._plan(lost))
        return dict(self._counted[key])

    def counted(self, plan: Plan) -> dict[str, float]:
        """Return what a plan leaves of what can be counted."""
        cost = self._cost_of(plan)
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


def weights_left(plan: Plan, entries: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the ratio of some weights that a plan leaves.

    A layer also loses the weights that took the channels which another one lost.

    Args:
        plan: What goes.
        entries: For each kind of cost the values of the graph that are its weights.
    """
    metas, left = plan.labelling.graph.metas, {}
    for kind, weights in entries.items():
        before = sum(prod(metas[value].shape) for value in weights)
        left[kind] = sum(prod(plan.shape(value)) for value in weights) / max(1, before)
    return left


def _key(lost: Sequence[int]) -> str:
    return " ".join(map(str, lost))
