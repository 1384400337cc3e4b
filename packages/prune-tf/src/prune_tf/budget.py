"""How much of a Keras model to prune, so that what is left of it fits a budget."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from prune_core.errors import ConfigError, PruneWarning
from prune_speedup.budget.costs import Costs, workload_of_plan
from prune_speedup.budget.ratios import BUDGETS, Ratios, check_target, sparsity_for
from prune_speedup.engine.plan import Plan, make_plan
from prune_speedup.engine.propagate import Labelling
from prune_tf.inputs import made_up_inputs
from prune_tf.latency import relative_latency
from prune_tf.masks import Masks
from prune_tf.pruning.closing import closed
from prune_tf.pruning.pruner import Pruner
from prune_tf.speedup.cost import cost_of
from prune_tf.speedup.run import plan_for, shrink

__all__ = ["fit_budget"]


def fit_budget(
    pruner: Pruner, target: Ratios, constants: str = "exact", example_inputs: Any = None
) -> float:
    """Return the least sparsity of all selected layers with which `shrink` meets all budgets.

    Args:
        pruner: A pruner in the mode `dependency_aware`; its masks stay as they are.
        target: What may be left, such as `{"flops": 0.5}`.
        constants: What `shrink` will be told.
        example_inputs: What both models run on where a latency is measured; made up unless given.

    Raises:
        ConfigError: When even the most that can be pruned does not meet a budget, or `shrink`
            would leave much more than was planned.
    """
    check_target(target)
    if "latency" in target and example_inputs is None:
        example_inputs = made_up_inputs(pruner.bound_model)
    coupling = pruner.coupling
    assert coupling is not None, "budgets are for channels that go together"
    scores = pruner.scores()
    alive = {each.name: pruner.alive(each) for each in pruner.targets}
    left_by = _Counted(coupling.units.labelling, target)

    def chosen(sparsity: float) -> list[int]:
        return coupling.choose(pruner.targets, scores, alive, lambda each: sparsity)

    def masks_at(sparsity: float) -> Masks:
        gone = chosen(sparsity)
        made = pruner.masks_for(coupling.masks_of(pruner.targets, scores, gone))
        return closed(coupling.units, made, gone, constants)

    def planned(sparsity: float) -> dict[str, float]:
        left = left_by(make_plan(coupling.units.labelling, chosen(sparsity)))
        if "latency" in target:
            small = _small(pruner.bound_model, masks_at(sparsity), constants)
            left["latency"] = relative_latency(small, pruner.bound_model, example_inputs)
        return left

    def really(sparsity: float) -> dict[str, float]:
        return left_by(plan_for(coupling.units.labelling, masks_at(sparsity), constants))

    def stays() -> str:
        found = coupling.choice(pruner.targets)
        names = list(dict.fromkeys([*found.fixed, *found.held]))
        shown = ", ".join(map(repr, names[:3])) + (" and others" if names[3:] else "")
        if not names:
            return ""
        return f"; {shown} {'keep all their channels' if names[1:] else 'keeps all'}"

    def missed(left: Ratios) -> str:
        name = max(left, key=lambda name: left[name] - target[name])
        return (
            f"target[{name!r}] is {target[name]}, and shrink() would leave {left[name]:.3f}: some "
            "of what is masked stays. constants='zero' here and there lets it go; or exclude those "
            "layers, or ask for less."
        )

    return sparsity_for(target, planned, really, stays=stays, missed=missed)


def _small(model: keras.Model, masks: Masks, constants: str) -> keras.Model:
    """Return the small model for a latency; whether it computes the same is seen later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruneWarning)
        return shrink(model, masks=masks, constants=constants, verify=False).model


class _Counted:
    """Says what a plan leaves, in relation to the dense model."""

    def __init__(self, labelling: Labelling, target: Ratios) -> None:
        nothing = make_plan(labelling, ())
        self._target = target
        self._dense = cost_of(nothing)
        self._costs = Costs(target.keys() - set(BUDGETS), workload_of_plan(nothing))
        if "flops" in target and not self._dense.flops:
            raise ConfigError(
                "target has 'flops', and the model has no layer whose operations are counted; say "
                "what may be left of its parameters."
            )

    def __call__(self, plan: Plan) -> dict[str, float]:
        left = cost_of(plan)
        ratios = {
            "parameters": left.parameters / max(1, self._dense.parameters),
            "flops": left.flops / max(1, self._dense.flops),
            **(self._costs.left(workload_of_plan(plan)) if self._costs else {}),
        }
        return {name: ratios[name] for name in self._target if name in ratios}
