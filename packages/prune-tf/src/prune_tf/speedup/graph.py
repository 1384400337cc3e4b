"""The calls of a functional or sequential model, in the order in which they run.

Everything that this project reads of Keras' own graph is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from prune_core.errors import SpeedupError

__all__ = ["Call", "calls_between", "calls_of", "check_model", "is_graph"]


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a layer or an operation.

    Attributes:
        op: The layer or operation.
        inputs: The symbolic tensors it is given.
        outputs: Those it returns.
        arguments: Everything it is given, `(args, kwargs)`.
        holder: The outermost layer whose own Python makes this call, or None for a call that the
            model's graph makes.
        wrapper: What calls the layer step by step, if it is not called as a whole.
    """

    op: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    holder: Any = None
    wrapper: Any = None

    @property
    def kind(self) -> str:
        """Class name of the layer or operation."""
        return type(self.op).__name__


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model whose calls can be read."""
    # A subclass made with Model(inputs, outputs) is functional too, unless it computes otherwise.
    symbolic = isinstance(layer, keras.Sequential) or (
        isinstance(layer, keras.Model) and hasattr(layer, "operations")
    )
    return symbolic and type(layer).call.__module__.partition(".")[0] == "keras"


def check_model(model: keras.Model) -> None:
    """Refuse what is no Keras model, or has no weights yet.

    Raises:
        SpeedupError: Saying what would do.
    """
    if not isinstance(model, keras.Model):
        raise SpeedupError(
            f"model is a {type(model).__module__}.{type(model).__name__}; it must be a Keras 3 "
            "model (keras.Model)."
        )
    if not model.built or (is_graph(model) and not model.inputs):
        raise SpeedupError(f"{model.name!r} has no weights yet; give it an Input and train it.")


def calls_of(model: keras.Model) -> list[Call]:
    """Return the calls between a model's inputs and outputs, each after those that it needs."""
    return calls_between(model.inputs, model.outputs)


def calls_between(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Call]:
    """Return the calls that lead from symbolic tensors to others, in an order that can run."""
    starts = {id(tensor) for tensor in inputs}
    done: dict[int, Call] = {}
    for output in outputs:
        stack = [(output, False)]
        while stack:
            tensor, entered = stack.pop()
            history = getattr(tensor, "_keras_history", None)
            # No operation has made what a call begins with, such as what stands for a weight.
            if id(tensor) in starts or history is None or history.operation is None:
                continue
            node = history.operation._inbound_nodes[history.node_index]
            if id(node) in done or node.is_input:
                continue
            if entered:
                done[id(node)] = Call(
                    history.operation,
                    tuple(node.input_tensors),
                    tuple(node.outputs),
                    (node.arguments.args, node.arguments.kwargs),
                )
            else:
                stack.append((tensor, True))
                stack.extend((needed, False) for needed in reversed(node.input_tensors))
    return list(done.values())
