"""The layers of a model, one after the other, as the world in which AMC's agent acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from prune_core.errors import ConfigError
from prune_speedup.search.amc.episodes import Facts
from prune_speedup.search.planned import PlannedBudget

__all__ = ["FEATURES", "LayerEnv"]

Observation = npt.NDArray[np.float32]

# The first seven are scaled to [0, 1] over the layers; the last three change as the agent acts.
FEATURES = (
    *("layer", "linear", "in_channels", "out_channels", "stride", "kernel_size", "weights"),
    *("reduced", "rest", "last_action"),
)


class LayerEnv(gymnasium.Env[Observation, Observation]):
    """In each step one layer keeps a part of its channels; an episode is one model.

    Layers that can only lose channels together are one step. An action is the ratio to keep. It is
    lowered as far as the budget asks, given what has been decided and that all layers to come lose
    the most that they may. The reward is known when the episode is over, and is not paid here.

    Args:
        budget: What may be left.
        layers: The layers to prune, by name.
        caps: The most that each may lose.
        lbound: The least ratio to keep.
        rbound: The largest ratio to keep.
    """

    def __init__(
        self,
        budget: PlannedBudget,
        layers: Mapping[str, Facts],
        caps: Mapping[str, float],
        lbound: float,
        rbound: float,
    ) -> None:
        if not budget.groups:
            raise ConfigError(
                "There is no layer that could lose a channel; let more layers be pruned."
            )
        self.budget = budget
        self.kind = next((kind for kind in budget.target if kind != "latency"), "flops")
        self._least = dict.fromkeys(layers, 1.0 - rbound)
        self._most = {name: max(min(caps[name], 1.0 - lbound), 1.0 - rbound) for name in layers}
        counts = "flops" if self.kind == "flops" else "parameters"
        self._work = {name: int(getattr(layer, counts)) for name, layer in layers.items()}
        self.fixed = _scaled([_features(i, group, layers) for i, group in enumerate(budget.groups)])
        self.action_space = gymnasium.spaces.Box(lbound, rbound, (1,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.sparsities = self._dense()
        self._check_reachable(lbound)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin with the first layer of the dense model."""
        super().reset(seed=seed)
        self._at, self._last = 0, 1.0
        self.sparsities = self._dense()
        return self._observe(), {}

    def step(self, action: Observation) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Let the layer of now keep a ratio, and go on to the next.

        Returns:
            What is seen then, no reward yet, whether that was the last layer, and the ratio that
            the layer really keeps, as `info["kept"]`.
        """
        group = self.budget.groups[self._at]
        sparsity = self._within_budget(group, 1.0 - float(action[0]))
        self.sparsities |= dict.fromkeys(group, sparsity)
        self._last = 1.0 - sparsity
        self._at += 1
        done = self._at == len(self.budget.groups)
        observation = np.zeros(len(FEATURES), np.float32) if done else self._observe()
        return observation, 0.0, done, False, {"kept": self._last}

    def _within_budget(self, group: Sequence[str], wanted: float) -> float:
        """Return the sparsity that is nearest to what is wanted and leaves the budget in reach."""
        most = min(self._most[name] for name in group)
        least = max(self._least[name] for name in group)
        plan = self._rest_at_most() | dict.fromkeys(group, min(max(wanted, least), most))
        for kind, ratio in self.budget.target.items():
            found = self.budget.reduced(plan, group, kind, ratio)
            sparsity = most if found is None else min(found[group[0]], most)
            plan |= dict.fromkeys(group, max(plan[group[0]], sparsity))
        return plan[group[0]]

    def _rest_at_most(self) -> dict[str, float]:
        """Return the sparsities decided so far, and for all layers to come the most."""
        later = [name for group in self.budget.groups[self._at :] for name in group]
        return self.sparsities | {name: self._most[name] for name in later}

    def _dense(self) -> dict[str, float]:
        return dict.fromkeys(self._most, 0.0)

    def _check_reachable(self, lbound: float) -> None:
        self._at = 0
        reached = self.budget.left(self._rest_at_most())
        for kind, ratio in self.budget.target.items():
            if reached[kind] > ratio:
                raise ConfigError(
                    f"target[{kind!r}] is {ratio:g}, and where every layer keeps the least that it "
                    f"may {reached[kind]:.3f} is left; lower lbound ({lbound:g}), let more layers "
                    "be pruned, or ask for less."
                )

    # --- what the agent sees --------------------------------------------------------------

    def _observe(self) -> Observation:
        """Return the features of the layer of now."""
        everything = sum(self._work.values()) or 1
        later = [name for group in self.budget.groups[self._at + 1 :] for name in group]
        changing = (
            1.0 - self.budget.known(self.sparsities)[self.kind],
            sum(self._work[name] for name in later) / everything,
            self._last,
        )
        return np.array([*self.fixed[self._at], *changing], np.float32)


def _features(number: int, group: Sequence[str], layers: Mapping[str, Facts]) -> tuple[float, ...]:
    """Return what is known of a layer, as numbers; the first speaks for a group."""
    layer = layers[group[0]]
    sizes = (layer.inputs, layer.outputs, layer.stride, layer.kernel_size, layer.weights)
    return float(number), float(layer.linear), *map(float, sizes)


def _scaled(rows: Sequence[tuple[float, ...]]) -> npt.NDArray[np.float64]:
    """Scale each column to [0, 1]; one in which all are the same says nothing, and is 0."""
    table = np.array(rows)
    low, span = table.min(0), np.ptp(table, 0)
    scaled: npt.NDArray[np.float64] = (table - low) / np.where(span > 0, span, 1.0)
    return scaled
