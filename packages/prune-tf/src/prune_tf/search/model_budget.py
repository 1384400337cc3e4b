"""Budgets of Keras models: of parameters, FLOPs, latency or registered costs."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prune_core.errors import ConfigError, PruneWarning
from prune_speedup.engine.plan import Plan
from prune_speedup.search.latency_cache import LatencyCache
from prune_speedup.search.planned import PlannedBudget, weights_left
from prune_tf.inputs import made_up_inputs
from prune_tf.latency import relative_latency
from prune_tf.masks import Masks, masks_of, plain
from prune_tf.pruning.pruner import Pruner
from prune_tf.speedup.cost import cost_of
from prune_tf.speedup.labelling import recorded_of
from prune_tf.speedup.run import plan_for, shrink
from prune_tf.variables import Kept

__all__ = ["ModelBudget", "RemovedWeights"]


class ModelBudget(PlannedBudget):
    """What may be left of a Keras model.

    Args:
        pruner: The pruner that masks the model, in the mode `dependency_aware`.
        target: What may be left, such as `{"flops": 0.5}`.
        caps: The most that each layer may lose.
        example_inputs: What a latency is measured on; made up unless given.
        measured: The latencies known so far.
    """

    def __init__(
        self,
        pruner: Pruner,
        target: Mapping[str, float],
        caps: Mapping[str, float],
        example_inputs: Any = None,
        measured: LatencyCache | None = None,
    ) -> None:
        assert pruner.coupling is not None, "budgets are for channels that go together"
        self._pruner, self._units_of_model = pruner, pruner.coupling.units
        if "latency" in target and example_inputs is None:
            example_inputs = made_up_inputs(pruner.bound_model)
        self._inputs = example_inputs
        layers = [each.name for each in pruner.targets]
        super().__init__(pruner.coupling, layers, target, caps, cost_of, self._named(), measured)
        if "flops" in target and not self.dense.flops:
            raise ConfigError(
                "target has 'flops', and the model has no layer whose operations are counted; say "
                "what may be left of its parameters."
            )

    def _named(self) -> str:
        """Return a short digest of all that the speed of the model depends on."""
        model = self._pruner.bound_model
        made = [f"{each.name} {type(each).__name__}" for each in model._flatten_layers()]
        made += [f"{each.path} {tuple(each.shape)}" for each in model.weights]
        made += [str(getattr(self._inputs, "shape", ""))]
        return hashlib.blake2b(f"{made}".encode(), digest_size=4).hexdigest()

    def _latency(self, lost: Sequence[int]) -> float:
        units = [self._units_of_model.unit(number) for number in self._units(lost)]
        numbers = np.random.default_rng(0)
        with plain(self._pruner.bound_model) as model:
            weights = Kept(model.weights)
            try:
                # What earlier rounds have masked is zero, and would go beside these units.
                for each in model.trainable_weights:
                    each.assign(numbers.normal(size=each.shape))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", PruneWarning)
                    small = shrink(model, units=units, verify=False).model
                return relative_latency(small, model, self._inputs)
            finally:
                weights.restore()

    def check(self, masks: Masks, sparsities: Mapping[str, float]) -> None:
        """Refuse masks of which less can be removed than the plan counts on.

        Args:
            masks: Masks that were made for some sparsities.
            sparsities: Those.

        Raises:
            ConfigError: When that is so.
        """
        promised, left = self.known(sparsities), self._removable(masks)
        for kind, found in left.items():
            if found > promised[kind] + 1e-9:
                raise ConfigError(
                    f"Of the masks that {type(self._pruner).__name__} makes, less can be removed "
                    f"than the target counts on: {found:.1%} of the {kind} would be left, and not "
                    f"{promised[kind]:.1%}. Exclude the layers whose channels stay; "
                    "prune_tf.shrink() of a model with such masks names them."
                )

    def shortfall(self, sparsities: Mapping[str, float]) -> str | None:
        """Say what the masks in force leave more than the target, or None if they meet it."""
        found = self._removable(masks_of(self._pruner.bound_model))
        for kind, ratio in self.target.items():
            if found.get(kind, 0.0) > ratio + 1e-9:
                return (
                    f"{found[kind]:.1%} of the {kind} will be left, where {ratio:.1%} was asked for"
                )
        return None

    def _removable(self, masks: Masks) -> dict[str, float]:
        """Return what is left, of what can be counted, when all goes that may."""
        return self.counted(plan_for(self._labelling, masks))


class RemovedWeights(ModelBudget):
    """Each entry of a `config_list` names the ratio that its layers lose together.

    A layer also loses the weights that took the channels which another one lost, so less has to
    be masked than is to go.

    Args:
        pruner: The pruner that masks the model, in the mode `dependency_aware`.
        entries: For each entry its layers, and that ratio.
        caps: The most that each layer may lose.
        example_inputs: An input of the model.
    """

    def __init__(
        self,
        pruner: Pruner,
        entries: Sequence[tuple[list[str], float]],
        caps: Mapping[str, float],
        example_inputs: Any = None,
    ) -> None:
        self._entries = {f"entry {place}": names for place, (names, _) in enumerate(entries)}
        super().__init__(pruner, {"parameters": 0.5}, caps, example_inputs)
        self.target = {f"entry {place}": 1.0 - total for place, (_, total) in enumerate(entries)}

    def counted(self, plan: Plan) -> dict[str, float]:
        """Return the ratio of the weights of each entry that a plan leaves."""
        places = recorded_of(plan.labelling).places
        own = {each.name: places.get(id(each.variable)) for each in self._pruner.targets}
        # What nothing calls is no value of the graph; it stays as it is.
        entries = {
            kind: [place for name in names if (place := own[name]) is not None]
            for kind, names in self._entries.items()
        }
        return weights_left(plan, entries)
