"""What rules say about a model: which channels are tied, constant, used, and where they lie."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from prune_speedup.engine.labels import Labels
from prune_tf.speedup.graph import Call
from prune_tf.speedup.sizes import Source

__all__ = ["Analysis", "Flow", "Use"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of the channels of a tensor.

    Attributes:
        labels: The label of each channel.
        constants: The value of a channel that has the same value everywhere and always, else NaN.
        axis: The axis on which the channels lie, counted from the end.
        more: The same of other axes, as the heads of attention beside the channels of each.
    """

    labels: Array
    constants: Array
    axis: int = -1
    more: tuple[Flow, ...] = ()

    @property
    def parts(self) -> tuple[Flow, ...]:
        """What is known, axis by axis."""
        return (replace(self, more=()), *self.more)

    def at(self, axis: int) -> Flow | None:
        """Return what is known of one axis."""
        return next((part for part in self.parts if part.axis == axis), None)


@dataclass(slots=True)
class Use:
    """A place where channels are multiplied by weights and added up.

    Attributes:
        layer: The layer that does it.
        labels: The channel at each place of the weight's input axis.
        constants: Their values where constant, else NaN.
        matters: Whether the weights at a place are not all zero.
        variable: The weight that has one slice for each place, or None where slices cannot be
            added to each other.
        axis: The axis of that weight along which the slices lie.
        bias: Takes `{place: value}` and returns what constants there add to every output; None
            where that is not the same everywhere, as at the borders of a padded convolution.
    """

    layer: Any
    labels: Array
    constants: Array
    matters: Array
    variable: str | None
    axis: int
    bias: Callable[[Mapping[int, float]], Array] | None


@dataclass
class Analysis:
    """Everything that is known of a model.

    Attributes:
        weights: Returns a variable of a layer, by name, with its mask applied.
        silence: Masks channels of a normalization, or None when those are to stay as they are.
        labels: The channels.
        uses: Where channels are added up.
        axes: `{layer: {(variable, axis): labels}}`: where channels lie in weights.
        sizes: `{layer: {config key: labels}}`: where their number is written down.
        reshaped: `{layer: (axis, labels)}`: where they lie in the target of a reshape.
        flows: What is known of each tensor.
        unknown: `{layer name: class}` of what has no rule.
        calls: How often each layer is called.
        followed: The calls, in their order.
        why_unknown: `{layer: why}` of what no rule has spoken for.
        owners: `{variable: (layer, name of the attribute, name of the variable)}`.
        entered: `{layer: its call}` of the layers that were followed to the inside.
        inner: `{layer: its fresh inputs}` of the same.
        shaped: `{layer: its call}` of layers of which a copy is cut to shape.
        attributes: `{layer: {attribute: what it is given a plan}}`, sizes that a layer remembers.
        counted: `{(layer, attribute): labels}` of the attributes that say how many there are.
        repairs: Whether attributes may be edited that a layer's own Python reads.
    """

    weights: Callable[[Any, str], Array]
    silence: Callable[[Any, Array], None] | None = None
    labels: Labels = field(default_factory=Labels)
    uses: list[Use] = field(default_factory=list)
    axes: dict[int, dict[tuple[str, int], Array]] = field(default_factory=lambda: defaultdict(dict))
    sizes: dict[int, dict[str, Array]] = field(default_factory=lambda: defaultdict(dict))
    reshaped: dict[int, tuple[int, Array]] = field(default_factory=dict)
    flows: dict[int, Flow] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)
    followed: list[Call] = field(default_factory=list)
    why_unknown: dict[int, str] = field(default_factory=dict)
    owners: dict[int, tuple[Any, str, str]] = field(default_factory=dict)
    entered: dict[int, Call] = field(default_factory=dict)
    inner: dict[int, list[Any]] = field(default_factory=dict)
    shaped: dict[int, Call] = field(default_factory=dict)
    attributes: dict[int, dict[str, Callable[[Any], Any]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    counted: dict[tuple[int, str], Array] = field(default_factory=dict)
    repairs: bool = True

    def counts(self, source: Source, labels: Array) -> None:
        """Say that an attribute has to say how many of some labels there are."""
        layer, name = source.owner, str(source.place)
        known = self.counted.setdefault((id(layer), name), labels)
        if len(known) != len(labels):
            why = f"{layer.name!r} counts others by its attribute {name!r} as well"
            self.labels.fix(known, why)
            self.labels.fix(labels, why)
            return
        if known is not labels:
            self.labels.tie(known, labels)
        self.attributes[id(layer)][name] = lambda plan: len(plan.kept(known))

    def counted_by(self, source: Source) -> Array | None:
        """Return the labels of which something says how many there are, if any are known."""
        if isinstance(source.place, str):
            return self.counted.get((id(source.owner), source.place))
        flow = self.flows.get(id(source.owner))
        part = flow.at(source.place) if flow is not None else None
        return None if part is None else part.labels

    def inputs(self, call: Call) -> list[Flow]:
        """Return what is known of the tensors that a call is given."""
        return [self.flow(tensor) for tensor in call.inputs]

    def flow(self, tensor: Any) -> Flow:
        """Return what is known of a tensor; nothing means that its channels stay."""
        if id(tensor) not in self.flows:
            self.flows[id(tensor)] = self.opaque(tensor)
        return self.flows[id(tensor)]

    def opaque(
        self, tensor: Any, why: str = "its channels are tied to an input of the model"
    ) -> Flow:
        """Return channels that stay, with values that nobody knows."""
        size = tensor.shape[-1] if tensor.shape else None
        labels = self.labels.new(size or 1)
        self.labels.fix(labels, why)
        return Flow(labels, np.full(len(labels), np.nan))

    def made(self, tensor: Any, parts: Sequence[Flow]) -> Flow:
        """Return what is known of a tensor, given what is known of some of its axes."""
        if not parts:
            return self.opaque(tensor, "they belong to no axis that could be cut")
        first, *others = sorted(parts, key=lambda part: part.axis, reverse=True)
        return replace(first, more=tuple(others))

    def along(self, tensor: Any, axis: int) -> Flow:
        """Return what is known of one axis of a tensor; where that is nothing, it stays."""
        part = self.flow(tensor).at(axis)
        if part is not None:
            return part
        labels = self.labels.new(tensor.shape[axis] or 1)
        self.labels.fix(labels, "they lie along an axis that cannot be cut")
        return Flow(labels, np.full(len(labels), np.nan), axis)

    def own(self, layer: Any, count: int) -> Array:
        """Return the labels of a layer's output channels, the same at each of its calls."""
        known = self.axes[id(layer)].get(("", 0))
        if known is None:
            known = self.axes[id(layer)]["", 0] = self.labels.new(count)
        return known

    def outputs(self, layer: Any) -> Array | None:
        """Return the labels of a layer's output channels, if it has any of its own."""
        return self.axes.get(id(layer), {}).get(("", 0))

    def lies(self, layer: Any, variable: str, axis: int, labels: Array) -> None:
        """Say which channels lie along an axis of a variable."""
        known = self.axes[id(layer)].setdefault((variable, axis), labels)
        if known is not labels:
            self.labels.tie(known, labels)

    def is_shared(self, layer: Any) -> bool:
        """Whether a layer is called in several places."""
        return self.calls[id(layer)] > 1
