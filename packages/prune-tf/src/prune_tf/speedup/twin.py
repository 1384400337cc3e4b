"""A copy of a layer, attribute by attribute, where its config does not make it again.

`get_config()` of many layers lacks an argument of their constructor, or holds one too many. Nobody
notices as long as their model is saved as a whole. What can be copied in any case is what a layer
consists of: its attributes, the layers and variables among them, and the lists that track these.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import keras

__all__ = ["twin"]

_FORGOTTEN = ("_inbound_nodes", "_outbound_nodes")
"""What a layer knows of the models that it is called in."""


def twin(layer: Any) -> Any:
    """Return a copy of a layer, with weights of its own and the same layers inside."""
    return _Copying().copy(layer)


class _Copying:
    """Copies things that refer to each other, each of them once."""

    def __init__(self) -> None:
        # The original is kept as well, so that no other object gets its id.
        self._done: dict[int, tuple[Any, Any]] = {}

    def copy(self, value: Any) -> Any:
        """Return a copy of a part of a layer; what cannot change is shared."""
        if id(value) in self._done:
            return self._done[id(value)][1]
        if isinstance(value, keras.Variable):
            return self._note(value, _variable(value))
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self.copy(value.__self__))
        if isinstance(value, partial):
            return partial(
                self.copy(value.func), *self.copy(value.args), **self.copy(value.keywords)
            )
        if isinstance(value, list | dict | set | tuple):
            return self._container(value)
        if isinstance(value, keras.layers.Layer) or _is_of_keras(value):
            return self._object(value)
        return value

    def _note(self, value: Any, made: Any) -> Any:
        self._done[id(value)] = (value, made)
        return made

    def _object(self, value: Any) -> Any:
        made = self._note(value, object.__new__(type(value)))
        for name, each in vars(value).items():
            object.__setattr__(made, name, [] if name in _FORGOTTEN else self.copy(each))
        return made

    def _container(self, value: Any) -> Any:
        """Copy a container; the lists in which Keras tracks layers must not track them again."""
        if isinstance(value, tuple):
            items = [self.copy(each) for each in value]
            named = hasattr(value, "_fields")
            return self._note(value, type(value)(*items) if named else type(value)(items))
        kind: Any = type(value)
        made = self._note(value, kind.__new__(kind))
        for name, each in getattr(value, "__dict__", {}).items():
            made.__dict__[name] = self.copy(each)
        if isinstance(value, list):
            list.extend(made, [self.copy(each) for each in value])
        elif isinstance(value, dict):
            dict.update(made, {key: self.copy(each) for key, each in value.items()})
        else:
            set.update(made, {self.copy(each) for each in value})
        return made


def _is_of_keras(value: Any) -> bool:
    """Whether it is a part that Keras gave the layer, such as its tracker or a seed generator."""
    kind: Any = type(value)
    return (
        kind.__module__.partition(".")[0] == "keras"
        and hasattr(value, "__dict__")
        and not isinstance(value, keras.KerasTensor | keras.dtype_policies.DTypePolicy | type)
        and kind.__setattr__ is object.__setattr__
    )


def _variable(variable: Any) -> Any:
    made = keras.Variable(
        keras.ops.copy(keras.ops.convert_to_tensor(variable)),
        dtype=variable.dtype,
        trainable=variable.trainable,
        autocast=variable._autocast,
        aggregation=variable.aggregation,
        name=variable.name,
    )
    made._path = variable._path
    made.constraint, made.regularizer = variable.constraint, variable.regularizer
    return made
