"""A model as the calls that it makes: of layers with a rule, and of `keras.ops` operations.

A layer that is made of others is entered. Its own `call()` runs on symbolic tensors, and what it
calls there, Keras notes down as it does for a functional model:

    Block(…)(x)     →     Dense, gelu, Dense, Add

So what a composite layer or a subclassed model does is known without a rule for its class. Layers
inside of it that have no rule either run their own `call()` in the same go.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import keras

from prune_core.errors import SpeedupError
from prune_tf.inputs import symbolic_inputs
from prune_tf.speedup.graph import Call, calls_between, calls_of, is_graph
from prune_tf.speedup.inline import Inlining, Stands, inlined
from prune_tf.speedup.reshapes import number_of_reshapes

__all__ = ["Recording", "left_as_it_was", "record"]

SIZES = ((2, 8), (2, 16), (2, 64), (None, None))
"""How many samples there are, and what stands for any other size that is open."""


@dataclass
class Recording:
    """What a model calls.

    Attributes:
        calls: In an order that can run; every call of a layer or operation that is not entered.
        outputs: The tensors that the model returns.
        entered: `{layer: its first call}` of the layers that were entered.
        inner: `{layer: the tensors its inside starts from}`, of the same calls.
        problems: `{layer: why it could not be entered}`.
        again: Pairs of tensors, what a layer is given now and what it was given at its first call.
        stands: The symbolic tensors that stand for weights which a layer's own Python reads.
        really: The shapes of tensors of which the layer that makes them says another shape.
    """

    calls: list[Call] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    entered: dict[int, Call] = field(default_factory=dict)
    inner: dict[int, list[Any]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    again: list[tuple[Any, Any]] = field(default_factory=list)
    stands: Stands = field(default_factory=dict)
    really: dict[int, tuple[int, ...]] = field(default_factory=dict)


class Passed:
    """Stands for the way into a layer that is entered, or out of it: nothing happens there."""

    name = "passed"


class Given:
    """Stands for what a layer puts out whatever comes in, such as a table of positions."""

    name = "given"


@dataclass(frozen=True, slots=True)
class Entered:
    """What was seen inside of a layer: the tensors it started from, its outputs, its calls."""

    fresh: list[Any]
    outputs: list[Any]
    calls: list[Call]
    stands: Stands
    whole: bool


def record(
    model: keras.Model, has_rule: Callable[[Any], bool], example_inputs: Any = None
) -> Recording:
    """Return what a model calls.

    Args:
        model: A built model.
        has_rule: Whether a layer or operation is not to be entered.
        example_inputs: What a subclassed model is called with, unless that can be told from how
            it was built.

    Raises:
        SpeedupError: When a subclassed model cannot be followed.
    """
    found = Recording()
    with left_as_it_was(model):
        if is_graph(model):
            calls, found.outputs = calls_of(model), list(model.outputs)
        else:
            calls, found.outputs = _root(model, has_rule, example_inputs, found)
        for call in calls:
            _expand(call, has_rule, found)
    return found


def _root(
    model: keras.Model, has_rule: Callable[[Any], bool], example_inputs: Any, found: Recording
) -> tuple[list[Call], Any]:
    problem = "it does not say what it takes; call it on a batch first"
    for inputs in symbolic_inputs(model, example_inputs):
        call = Call(model, tuple(keras.tree.flatten(inputs)), (), ((inputs,), {}))
        entered = _entered(call, has_rule, found)
        if isinstance(entered, str):
            problem = entered
            continue
        if not all(isinstance(each, keras.KerasTensor) for each in entered.outputs):
            problem = "it returns what does not depend on its input"
            continue
        found.stands |= entered.stands
        found.entered[id(model)] = call
        found.inner[id(model)] = entered.fresh
        return [replace(each, holder=model) for each in entered.calls], entered.outputs
    raise SpeedupError(
        f"{type(model).__name__} {model.name!r} computes in Python code of its own that cannot be "
        f"followed: {problem}. Its masks stay in force. Write its call() with Keras layers and "
        "keras.ops, or build it with keras.Model(inputs, outputs)."
    )


def _expand(call: Call, has_rule: Callable[[Any], bool], found: Recording) -> None:
    """Note a call, or what it calls in turn."""
    if type(call.op) is keras.layers.TimeDistributed and has_rule(call.op.layer):
        # Axes count from the end, so that another axis in front makes no difference.
        found.entered.setdefault(id(call.op), call)
        holder = call.holder or call.op
        found.calls.append(replace(call, op=call.op.layer, holder=holder, wrapper=call.op))
        return
    if not isinstance(call.op, keras.layers.Layer) or has_rule(call.op):
        found.calls.append(call)
        return
    entered = _not_to_enter(call.op) or _entered(call, has_rule, found)
    if isinstance(entered, str):
        found.problems[id(call.op)] = entered
        found.calls.append(call)
        return
    found.stands |= entered.stands
    if id(call.op) in found.entered:
        found.again += zip(entered.fresh, found.inner[id(call.op)], strict=True)
    found.entered.setdefault(id(call.op), call)
    found.inner.setdefault(id(call.op), entered.fresh)
    for outer, inner in zip(_each_once(call.inputs), entered.fresh, strict=True):
        found.calls.append(Call(Passed(), (outer,), (inner,), ((), {})))
    holder = call.holder if is_graph(call.op) else call.holder or call.op
    for each in entered.calls:
        _expand(replace(each, holder=holder), has_rule, found)
    for inner, outer in zip(entered.outputs, call.outputs, strict=True):
        shape = getattr(inner, "shape", outer.shape)  # None may be returned beside tensors
        if not _agree(shape, outer.shape):
            found.really[id(outer)] = tuple(shape)
        depends = isinstance(inner, keras.KerasTensor)
        step, given = (Passed(), (inner,)) if depends else (Given(), ())
        found.calls.append(Call(step, given, (outer,), ((), {})))


def _agree(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether two shapes may be of one tensor, apart from how many samples there are."""
    pairs = zip(one[1:], other[1:], strict=False)
    return len(one) == len(other) and all(a is None or b is None or a == b for a, b in pairs)


def _not_to_enter(layer: Any) -> str:
    """Why the inside of a layer says too little of what it computes with, if so."""
    for each in layer._flatten_layers():
        if any(getattr(each, name, None) for name in ("lora_enabled", "quantization_mode")):
            return "it is quantized or has LoRA"
    if isinstance(layer, keras.layers.Wrapper):
        # As SpectralNormalization, which in training has a vector as long as the kernel is wide.
        return "a wrapper may do something else in training"
    return ""


def _entered(call: Call, has_rule: Callable[[Any], bool], known: Recording) -> str | Entered:
    """Look inside of a layer, with sizes that fit; a text says why that cannot be done."""
    problems: list[str] = []
    found: list[Entered] = []
    for symbolic, sizes in product((True, False), SIZES):
        entered = _enter(call, has_rule, sizes, Inlining(symbolic), known.really)
        if isinstance(entered, str):
            problems.append(entered)
        elif entered.whole:
            return entered
        else:
            found.append(entered)
    return found[0] if found else problems[0]


def _enter(
    call: Call,
    has_rule: Callable[[Any], bool],
    sizes: tuple[int | None, int | None],
    state: Inlining,
    really: Mapping[int, tuple[int, ...]],
) -> str | Entered:
    """Run a layer's own `call()` on fresh tensors, and see what it calls in turn."""
    samples, other = sizes
    fresh: dict[int, Any] = {}

    def renewed(given: Any) -> Any:
        if not isinstance(given, keras.KerasTensor):
            return given
        if id(given) not in fresh:
            told = really.get(id(given), given.shape)
            shape = [size or (samples if at == 0 else other) for at, size in enumerate(told)]
            fresh[id(given)] = keras.KerasTensor(tuple(shape), given.dtype)
        return fresh[id(given)]

    args, kwargs = keras.tree.map_structure(renewed, call.arguments)
    parameters = inspect.signature(call.op.call).parameters
    # A model hands it to each of its layers, and Keras drops it where a layer does not take it.
    kwargs = {name: value for name, value in kwargs.items() if name != "training"}
    if "training" in parameters:
        kwargs = kwargs | {"training": False}
    # A model inside of another is copied layer by layer, so that each of them is entered alone.
    inside = [
        each
        for each in ([] if is_graph(call.op) else call.op._flatten_layers())
        if each is call.op or not (has_rule(each) or _is_done_elsewhere(each, has_rule))
    ]
    try:
        with keras.StatelessScope(), inlined(inside, state), number_of_reshapes(call.op):
            outputs = keras.tree.flatten(call.op.call(*args, **kwargs))
        calls = calls_between([*fresh.values()], outputs)
    except Exception as error:  # whatever a layer's own Python raises
        said = str(error).strip().splitlines()
        return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    if call.outputs and len(call.outputs) != len(outputs):
        return "it returns something else when it is called on its own"
    starts = [fresh[id(each)] for each in _each_once(call.inputs)]
    return Entered(starts, outputs, calls, state.stands, not state.left)


def _is_done_elsewhere(layer: Any, has_rule: Callable[[Any], bool]) -> bool:
    """Whether `_expand` knows better what to do with a layer than to run its `call()`."""
    timed = type(layer) is keras.layers.TimeDistributed and has_rule(layer.layer)
    return timed or bool(_not_to_enter(layer))


def _each_once(tensors: Sequence[Any]) -> list[Any]:
    return [*{id(tensor): tensor for tensor in tensors}.values()]


@contextmanager
def left_as_it_was(layer: Any) -> Iterator[None]:
    """Forget, afterwards, the symbolic calls that were made meanwhile."""
    inside = [*layer._flatten_layers()]
    operations = [op for each in inside for op in getattr(each, "_operations", ())]
    noted = [
        (nodes, len(nodes))
        for op in {id(each): each for each in (*inside, *operations)}.values()
        for nodes in (op._inbound_nodes, op._outbound_nodes)
    ]
    try:
        yield
    finally:
        for nodes, count in noted:
            del nodes[count:]
