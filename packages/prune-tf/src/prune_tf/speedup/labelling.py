"""What the rules have found, in the words of the engine that all frameworks share.

Rules speak of layers, of their variables and of symbolic tensors. The engine knows numbered values
with labels along their axes, and calls between them; from these it reads units, makes plans and
counts what they cost. A layer is one call, which reads its variables besides its inputs:

    Dense(h)     →     v7 = keras.Dense(v4, kernel=v0, bias=v1)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call, Graph, Meta, Ref
from prune_speedup.engine.labels import Array
from prune_speedup.engine.propagate import Labelling
from prune_speedup.engine.rules import Entry
from prune_speedup.engine.values import CONSTANT, Group, Value, encode, spread
from prune_tf.layers import layers_of
from prune_tf.speedup.analysis import Analysis
from prune_tf.speedup.graph import Call as KerasCall
from prune_tf.speedup.open_sizes import known_sizes
from prune_tf.speedup.record import Passed
from prune_tf.speedup.shaping import own_variables

__all__ = ["labelling_of", "variables_of"]


class _Rules:
    """Keras' rules have run already, so that the engine has nothing to ask them."""

    def find(self, target: Any) -> Entry | None:
        return None

    def repeatable(self, target: Any) -> bool:
        return True


def labelling_of(model: keras.Model, analysis: Analysis) -> Labelling:
    """Write down what is known of a model as the engine has it.

    Args:
        model: The model.
        analysis: What the rules have found of it.
    """
    return _Writer(model, analysis).write()


def variables_of(model: keras.Model) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the layer and the variable of everything that a model holds."""
    layers = [("", model), *((named.name, named.layer) for named in layers_of(model))]
    taken: dict[str, int] = {}
    for prefix, layer in layers:
        for variable in own_variables(layer):
            name = f"{prefix}/{variable.name}" if prefix else variable.name
            taken[name] = taken.get(name, 0) + 1
            yield name if taken[name] == 1 else f"{name}:{taken[name]}", layer, variable


@dataclass
class _Writer:
    model: keras.Model
    analysis: Analysis
    graph: Graph = field(default_factory=Graph)
    columns: dict[int, list[Array | None]] = field(default_factory=dict)
    values: dict[int, Value] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    own: dict[int, dict[str, Ref]] = field(default_factory=dict)

    def write(self) -> Labelling:
        self.names = {id(named.layer): named.name for named in layers_of(self.model)}
        for name, layer, variable in variables_of(self.model):
            self._variable(name, layer, variable)
        sizes = known_sizes(self.analysis.followed)
        for call in self.analysis.followed:
            self._call(call, sizes)
        flow = Flow(self.analysis.labels, self.graph.metas, _Rules())
        flow.values = self.values
        for name, kind in self.analysis.unknown.items():
            flow.unknown.setdefault(kind, name)
        return Labelling(self.graph, self.analysis.labels, self.columns, flow)

    def _variable(self, name: str, layer: Any, variable: Any) -> None:
        if id(variable) in self.places:
            place = self.places[id(variable)]
            self.graph.tensors[place] = (*self.graph.tensors[place], name)
            self._lies_also(layer, variable, place)
        else:
            place = self._new(variable, tuple(variable.shape))
            self.graph.tensors[place] = (name,)
            # What is frozen for a while is a parameter all the same.
            if any(variable is each for each in layer._trainable_variables):
                self.graph.parameters.add(place)
            if not self.analysis.calls[id(layer)] and not self._is_held(layer):
                self.graph.unread.append(name)
            self.columns[place] = [
                self._column(layer, variable, axis, size)
                for axis, size in enumerate(variable.shape)
            ]
            self.values[place] = self._value(place, dict(enumerate(self.columns[place])))
        self.own.setdefault(id(layer), {}).setdefault(variable.name, Ref(place))

    def _is_held(self, layer: Any) -> bool:
        return id(layer) in self.analysis.axes or id(layer) in self.analysis.entered

    def _lies_also(self, layer: Any, variable: Any, place: int) -> None:
        """A variable of two layers has the same channels in both."""
        for axis, known in enumerate(self.columns[place]):
            other = self.analysis.axes.get(id(layer), {}).get((variable.name, axis))
            if known is not None and other is not None and known is not other:
                self.analysis.labels.tie(known, other)

    def _column(self, layer: Any, variable: Any, axis: int, size: int) -> Array | None:
        known = self.analysis.axes.get(id(layer), {}).get((variable.name, axis))
        if known is None and (size == 1 or not keras.backend.is_float_dtype(variable.dtype)):
            return None
        if known is None:
            known = self.analysis.labels.new(size)
            self.analysis.labels.fix(known, self._why(layer))
        return known

    def _why(self, layer: Any) -> str:
        why = self.analysis.why_unknown.get(id(layer))
        if why is None and not self.analysis.calls[id(layer)]:
            why = "nothing calls it on the way from the inputs to the outputs"
        return why or "its rule says nothing of this axis"

    def _new(self, thing: Any, shape: tuple[int, ...]) -> int:
        real = keras.backend.is_float_dtype(keras.backend.standardize_dtype(thing.dtype))
        place = self.graph.add_value(Meta(shape, thing.dtype, real))
        self.places[id(thing)] = place
        return place

    def _value(self, place: int, columns: dict[int, Array | None]) -> Value:
        shape = self.graph.metas[place].shape
        groups = [
            Group(spread(encode(column, CONSTANT), axis, shape))
            for axis, column in columns.items()
            if column is not None and len(column) == shape[axis] > 1
        ]
        return Value(shape, tuple(groups))

    def _tensor(self, tensor: Any, sizes: dict[int, tuple[int, ...]]) -> int:
        if id(tensor) in self.places:
            return self.places[id(tensor)]
        shape = sizes[id(tensor)]
        place = self._new(tensor, shape)
        flow = self.analysis.flows.get(id(tensor))
        parts = () if flow is None else flow.parts
        columns = {
            part.axis % len(shape): part.labels for part in parts if len(shape) >= -part.axis
        }
        self.values[place] = self._value(place, dict(columns))
        return place

    def _call(self, call: KerasCall, sizes: dict[int, tuple[int, ...]]) -> None:
        if isinstance(call.op, Passed):
            [outer], [inner] = call.outputs, call.inputs
            self.places[id(outer)] = self._tensor(inner, sizes)
            return
        for tensor in call.inputs:
            if id(tensor) not in self.places:
                self.graph.inputs.append(self._tensor(tensor, sizes))

        def written(given: Any) -> Any:
            if isinstance(given, keras.KerasTensor):
                return Ref(self._tensor(given, sizes))
            if isinstance(given, keras.Variable):
                return Ref(self.places[id(given)]) if id(given) in self.places else None
            return given

        args, kwargs = keras.tree.map_structure(written, call.arguments)
        kwargs = {**kwargs, **self._read_by(call.op)}
        outputs: list[int | None] = [self._tensor(output, sizes) for output in call.outputs]
        layer = self.names.get(id(call.op)) or self.names.get(id(call.holder), "")
        self.graph.calls.append(Call(f"keras.{call.kind}", tuple(args), kwargs, outputs, layer))

    def _read_by(self, op: Any) -> dict[str, Any]:
        """The variables of a layer, and of the cell inside of a recurrent one; its equation."""
        cell = getattr(op, "cell", None)
        inside = self.own.get(id(cell), {}) if isinstance(cell, keras.layers.Layer) else {}
        equation = getattr(op, "equation", None) or getattr(op, "subscripts", None)
        told = {"equation": equation} if isinstance(equation, str) else {}
        return {**self.own.get(id(op), {}), **inside, **told}
