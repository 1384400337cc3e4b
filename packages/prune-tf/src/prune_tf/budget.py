"""How much of a Keras model to prune, so that what is left of it fits a budget."""

from __future__ import annotations

from collections.abc import Mapping

from prune_core.errors import ConfigError
from prune_speedup.budget.costs import Costs, workload_of_plan
from prune_speedup.budget.ratios import BUDGETS, Ratios, check_target, sparsity_for
from prune_speedup.engine.plan import Plan, make_plan
from prune_speedup.engine.propagate import Labelling
from prune_tf.pruning.closing import closed
from prune_tf.pruning.pruner import Pruner
from prune_tf.speedup.cost import cost_of
from prune_tf.speedup.run import plan_for

__all__ = ["check_budget", "fit_budget"]


def check_budget(target: Mapping[str, float]) -> None:
    """Refuse a budget that is not one, or that cannot be found out of a Keras model."""
    check_target(target)
    if "latency" in target:
        raise ConfigError(
            "target has 'latency', which is measured for torch models only; for a Keras model say "
            "what may be left of parameters or flops, or of a cost that a plugin registers."
        )


def fit_budget(pruner: Pruner, target: Ratios, constants: str = "exact") -> float:
    """Return the least sparsity of all selected layers with which `shrink` meets all budgets.

    Args:
        pruner: A pruner in the mode `dependency_aware`; its masks stay as they are.
        target: What may be left, such as `{"flops": 0.5}`.
        constants: What `shrink` will be told.

    Raises:
        ConfigError: When even the most that can be pruned does not meet a budget, or `shrink`
            would leave much more than was planned.
    """
    check_budget(target)
    coupling = pruner.coupling
    assert coupling is not None, "budgets are for channels that go together"
    scores = pruner.scores()
    alive = {each.name: pruner.alive(each) for each in pruner.targets}
    left_by = _Counted(coupling.units.labelling, target)

    def chosen(sparsity: float) -> list[int]:
        return coupling.choose(pruner.targets, scores, alive, lambda each: sparsity)

    def planned(sparsity: float) -> dict[str, float]:
        return left_by(make_plan(coupling.units.labelling, chosen(sparsity)))

    def really(sparsity: float) -> dict[str, float]:
        gone = chosen(sparsity)
        made = pruner.masks_for(coupling.masks_of(pruner.targets, scores, gone))
        masks = closed(pruner.bound_model, coupling.units, made, gone, constants)
        return left_by(plan_for(pruner.bound_model, masks, constants))

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
        return {name: ratios[name] for name in self._target}
