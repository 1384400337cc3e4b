"""What a model calls, written down as the engine's graph of numbered values.

A layer is one call, which reads its variables besides its inputs:

    Dense(h)     →     v7 = keras.Dense(v4, kernel=v0, bias=v1)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras

from prune_speedup.engine.graph import Call, Graph, Meta, Ref
from prune_tf.layers import layers_of, slots_of
from prune_tf.speedup.graph import Call as KerasCall
from prune_tf.speedup.graph import is_graph
from prune_tf.speedup.open_sizes import Sizes, known_sizes
from prune_tf.speedup.record import Given, Passed, Recording, record
from prune_tf.speedup.rules.registry import Alike, Kind, has_rule
from prune_tf.speedup.shaping import own_variables

__all__ = ["Recorded", "attribute_of", "recorded", "variables_of"]


@dataclass
class Recorded:
    """A model as the engine reads it.

    Attributes:
        model: The model.
        found: What it calls, in Keras' own objects.
        graph: The same as the engine has it.
        calls: Keras' call for each call of the graph.
        places: `{tensor or variable: its value in the graph}`.
        seen: What a run of the model has shown of its constants, and with which weights.
    """

    model: keras.Model
    found: Recording
    graph: Graph = field(default_factory=Graph)
    calls: list[KerasCall] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    seen: tuple[bytes, Any] | None = None

    @cached_property
    def times(self) -> Counter[int]:
        """How often each layer or operation is called."""
        return Counter(id(call.op) for call in self.calls)

    @cached_property
    def first(self) -> dict[int, int]:
        """The position of the first call of each layer or operation."""
        return {id(call.op): at for at, call in reversed([*enumerate(self.calls)])}

    @property
    def has_one_size(self) -> bool:
        """Whether the model takes inputs of one size only, apart from how many there are."""
        return is_graph(self.model) and not any(None in t.shape[1:] for t in self.model.inputs)

    def call_of(self, op: Any) -> KerasCall | None:
        """Return the first call of a layer or operation."""
        return self.calls[self.first[id(op)]] if id(op) in self.first else None

    def is_shared(self, op: Any) -> bool:
        """Whether a layer is called in several places."""
        return self.times[id(op)] > 1


def recorded(model: keras.Model, example_inputs: Any = None) -> Recorded:
    """Record a model.

    Args:
        model: A built model.
        example_inputs: What a subclassed model is called with, unless it tells by itself.

    Raises:
        SpeedupError: When a subclassed model cannot be followed.
    """
    made = Recorded(model, record(model, has_rule, example_inputs))
    _Writer(made, known_sizes(made.found.calls, made.found.really)).write()
    return made


def variables_of(model: keras.Model) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the layer and the variable of everything that a model holds."""
    layers = [("", model), *((named.name, named.layer) for named in layers_of(model))]
    taken: dict[str, int] = {}
    for prefix, layer in layers:
        for variable in own_variables(layer):
            name = f"{prefix}/{variable.name}" if prefix else variable.name
            taken[name] = taken.get(name, 0) + 1
            yield name if taken[name] == 1 else f"{name}:{taken[name]}", layer, variable


def attribute_of(layer: Any, variable: Any) -> str:
    """Return by which attribute masks know a variable, or else its own name."""
    names = (name for name in slots_of(layer) if getattr(layer, name) is variable)
    return next(names, str(variable.name))


class _Writer:
    def __init__(self, made: Recorded, sizes: Sizes) -> None:
        self.found, self.graph, self.places = made.found, made.graph, made.places
        self.made, self.sizes = made, sizes
        self.names = {id(named.layer): named.name for named in layers_of(made.model)}

    def write(self) -> None:
        self._variables()
        for call in self.found.calls:
            self._call(call)
        for given, first in self.found.again:
            refs = tuple(Ref(self._tensor(tensor)) for tensor in (given, first))
            self._add(KerasCall(Alike(), (given, first), (), ((), {})), refs, {})
        self.graph.outputs = [self._tensor(tensor) for tensor in self.found.outputs]

    def _variables(self) -> None:
        read = {
            id(each)
            for call in self.found.calls
            for each in (*_weights(call.op), *keras.tree.flatten(call.arguments))
            if isinstance(each, keras.Variable)
        }
        stands = self.found.stands
        inputs = (tensor for call in self.found.calls for tensor in call.inputs)
        read |= {id(stands[id(tensor)][1]) for tensor in inputs if id(tensor) in stands}
        for name, layer, variable in variables_of(self.made.model):
            if id(variable) not in read:
                self.graph.unread.append(name)
                continue
            if id(variable) not in self.places:
                self.graph.tensors[self._new(variable, tuple(variable.shape))] = ()
            place = self.places[id(variable)]
            self.graph.tensors[place] = (*self.graph.tensors[place], name)
            # What is frozen for a while is a parameter all the same.
            if any(variable is each for each in layer._trainable_variables):
                self.graph.parameters.add(place)
        for key, (_, variable) in stands.items():
            if id(variable) in self.places:
                self.places[key] = self.places[id(variable)]

    def _new(self, thing: Any, shape: tuple[int, ...]) -> int:
        real = keras.backend.is_float_dtype(keras.backend.standardize_dtype(thing.dtype))
        place = self.graph.add_value(Meta(shape, thing.dtype, real))
        self.places[id(thing)] = place
        return place

    def _tensor(self, tensor: Any) -> int:
        if id(tensor) in self.places:
            return self.places[id(tensor)]
        return self._new(tensor, self.sizes[id(tensor)])

    def _call(self, call: KerasCall) -> None:
        if isinstance(call.op, Passed):
            [after], [before] = call.outputs, call.inputs
            if self.sizes[id(before)] == self.sizes[id(after)]:
                self.places[id(after)] = self._tensor(before)
            else:  # a size that is open has become another one inside
                self._add(call, (Ref(self._tensor(before)),), {})
            return
        if isinstance(call.op, Given):
            return

        def written(given: Any) -> Any:
            if isinstance(given, keras.KerasTensor):
                return Ref(self._tensor(given))
            if isinstance(given, keras.Variable) and id(given) in self.places:
                return Ref(self.places[id(given)])
            return given

        args, kwargs = keras.tree.map_structure(written, call.arguments)
        own: dict[str, Any] = {}
        for number, variable in enumerate(_weights(call.op)):
            name = variable.name if variable.name not in own else f"{variable.name}:{number}"
            own[name] = Ref(self.places[id(variable)])
        equation = getattr(call.op, "equation", None) or getattr(call.op, "subscripts", None)
        told = {"equation": equation} if isinstance(equation, str) else {}
        self._add(call, tuple(args), {**kwargs, **own, **told})

    def _add(self, call: KerasCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outputs: list[int | None] = [self._tensor(output) for output in call.outputs]
        layer = self.names.get(id(call.op)) or self.names.get(id(call.holder), "")
        made = Call(Kind(type(call.op)), args, kwargs, outputs, layer, op=call.op)
        for place in made.inputs():
            if place not in self._known:
                self._known.add(place)
                self.graph.inputs.append(place)
        self._known.update(place for place in outputs if place is not None)
        self.graph.calls.append(made)
        self.made.calls.append(call)

    @cached_property
    def _known(self) -> set[int]:
        """The values that something has made by now."""
        return set(self.graph.tensors)


def _weights(op: Any) -> list[Any]:
    """The variables of a layer, and of the cell inside of a recurrent one."""
    return op.weights if isinstance(op, keras.layers.Layer) else []
