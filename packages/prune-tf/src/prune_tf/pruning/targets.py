"""From a model and a `config_list` to the layers that will be masked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from prune_core.config import Algorithm, Entry, ModuleInfo, match
from prune_core.config.tied import leave_out_tied
from prune_core.errors import ConfigError
from prune_tf.axes import bias_axis, output_axis, to_torch, torch_shape
from prune_tf.constraint import Masked
from prune_tf.layers import Named, Slot, layers_of, slots_of, weight_slots

__all__ = ["Target", "find_targets", "weights_of"]

Array = np.ndarray[Any, Any]
_CELLS = (keras.layers.SimpleRNNCell, keras.layers.GRUCell, keras.layers.LSTMCell)


@dataclass(frozen=True, slots=True)
class Target:
    """One weight that will be masked, and the settings for it.

    Attributes:
        name: What the user calls it: the layer's name, and for a further weight of the layer, such
            as the recurrent kernel of a cell, `"<layer>/<variable>"`.
        layer_name: Name of the layer.
        layer: The layer.
        slot: The variable that is scored.
        config: The settings that the `config_list` gives it.
        along: The axis of its output channels, if it is another than usual.
    """

    name: str
    layer_name: str
    layer: Any
    slot: Slot
    config: dict[str, Any]
    along: int | None = None

    @property
    def variable(self) -> Any:
        """The variable that is scored and masked."""
        return getattr(self.layer, self.slot.name)

    @property
    def weight(self) -> Array:
        """The weight as the mask in force leaves it, in torch's order of axes."""
        value = np.asarray(self.variable.numpy())
        wide = value if value.dtype.kind == "f" and value.itemsize >= 4 else value.astype("float32")
        return to_torch(self.layer, self.slot.name, wide)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `weight`."""
        return torch_shape(self.layer, self.slot.name)

    @property
    def alive(self) -> Array:
        """What is not masked yet, in torch's order of axes."""
        variable = self.variable
        mask = variable.constraint
        array = mask.numpy() if isinstance(mask, Masked) else np.ones(variable.shape, bool)
        return to_torch(self.layer, self.slot.name, array)

    @property
    def axis(self) -> int:
        """The axis of `weight` along which output channels lie."""
        return output_axis(self.layer) if self.along is None else self.along

    @property
    def bias(self) -> str | None:
        """The companion with values for each output channel, or None."""
        einsum = isinstance(self.layer, keras.layers.EinsumDense)
        cell = self.along is not None and isinstance(self.layer, _CELLS)
        if self.along is not None and not (cell or einsum):
            return None  # nobody knows what a layer of the user's own calls a bias
        for name in ("bias", "beta"):
            if name in slots_of(self.layer):
                shape, axis = tuple(getattr(self.layer, name).shape), self.bias_axis
                fits = len(shape) == 1 or cell or einsum
                if fits and len(shape) >= -axis and shape[axis] == self.shape[self.axis]:
                    return name
        return None

    @property
    def bias_axis(self) -> int:
        """The axis of a bias, and of what comes out, along which output channels lie."""
        return bias_axis(self.layer, self.along)

    def bias_mask(self, kept: Array) -> Array:
        """Return the mask of the companion, given which output channels are kept."""
        shape, axis = tuple(getattr(self.layer, str(self.bias)).shape), self.bias_axis
        lying = [1] * len(shape)
        lying[axis] = -1
        return np.array(np.broadcast_to(kept.reshape(lying), shape))


def find_targets(
    model: keras.Model, entries: Sequence[Entry], algorithm: Algorithm
) -> list[Target]:
    """Return the layers that the entries select, each with its settings.

    Raises:
        ConfigError: When the entries do not fit the model, or a layer cannot be masked.
    """
    layers = layers_of(model)
    if not model.built or not layers:
        raise ConfigError(
            f"The model {model.name!r} has no weights yet. Build it first: give it an Input, or "
            "call it on a batch."
        )
    weights = {name: (named, slot) for named in layers for name, slot in weights_of(named)}
    infos = [info for named in layers for info in _infos(named)]
    settings = match(entries, infos, algorithm)
    targets = [
        Target(name, weights[name][0].name, weights[name][0].layer, weights[name][1], config)
        for name, config in settings.items()
    ]
    for target in targets:
        if getattr(target.layer, "quantization_mode", None):
            raise ConfigError(
                f"{target.name!r} is quantised ({target.layer.quantization_mode}), so that its "
                "numbers say nothing without their scales. Prune and shrink first, and call "
                "quantize() on the small model; or exclude it."
            )
    tied = leave_out_tied(settings, entries, _sharing(layers, targets))
    return [target for target in targets if target.name not in tied]


def weights_of(named: Named) -> Iterator[tuple[str, Slot]]:
    """Yield the weights of a layer by the names under which a config selects them."""
    for at, slot in enumerate(weight_slots(named.layer)):
        yield f"{named.name}/{slot.name}" if at else named.name, slot


def _infos(named: Named) -> Iterator[ModuleInfo]:
    """Yield what a config can select: the layer, and each further weight of it."""
    first, *others = named.names
    kind = type(named.layer)
    kinds = tuple(base.__name__ for base in kind.__mro__)
    further = [name for name, _ in weights_of(named)]
    inside = [*named.layer._flatten_layers(include_self=False, recursive=False)]
    holders = [f"{first}/{each.name}" for each in inside if each.weights]
    yield ModuleInfo(
        first,
        kind.__name__,
        kinds,
        tuple(others),
        has_weight=bool(further),
        lacks="" if further or not holders else f"keeps its weights in {', '.join(holders)}.",
    )
    for name in further[1:]:
        yield ModuleInfo(name, kind.__name__, kinds)


def _sharing(
    layers: Iterable[Named], targets: Sequence[Target]
) -> dict[str, tuple[str, list[str]]]:
    """For targets whose variable other layers have too: its name, and its other names."""
    holders: dict[int, list[str]] = defaultdict(list)
    for named in layers:
        for name in slots_of(named.layer):
            holders[id(getattr(named.layer, name))].append(f"{named.name} {name}")
    found: dict[str, tuple[str, list[str]]] = {}
    for target in targets:
        first, *others = holders[id(getattr(target.layer, target.slot.name))]
        own = next((h for h in (first, *others) if h.startswith(f"{target.layer_name} ")), first)
        if others:
            found[target.name] = own, [h for h in (first, *others) if h != own]
    return found
