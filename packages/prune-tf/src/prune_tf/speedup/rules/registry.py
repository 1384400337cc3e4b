"""Where rules are found, by the class of a layer or operation.

A rule is a function of the engine's flow and one call, whose `op` is the layer; it returns the
value, or the values, that the call makes:

    @rule(Scaled)                      # a layer that multiplies by a weight for each channel
    def scaled(flow, call):
        x, scale = flow.get(call.args[0]), flow.get(call.argument("scale"))
        return flow.align([x, scale], x.shape, any)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from prune_speedup.engine.flow import Flow
from prune_speedup.engine.graph import Call
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Flags
from prune_speedup.engine.rules import Declined, Entry, Rule
from prune_speedup.engine.values import Group, Value, extended
from prune_tf.speedup.record import Passed
from prune_tf.speedup.rules.of_plugins import rule_of_plugin

if TYPE_CHECKING:
    from prune_tf.speedup.recorded import Recorded

__all__ = ["RULES", "Alike", "Kind", "Rule", "Rules", "has_rule", "rule", "rule_for"]

RULES: dict[str | type, Rule] = {}


def rule(*kinds: str | type) -> Callable[[Rule], Rule]:
    """Make a function the rule for classes: for Keras' by their names, for others themselves.

    A class of your own that goes by the name of one of Keras' may do anything, so that a name
    speaks for Keras' alone.

    Args:
        kinds: The classes.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


def rule_for(kind: type) -> Rule | None:
    """Return the rule for a class of layers or operations, if there is one."""
    if kind in RULES:
        return RULES[kind]
    from_keras = kind.__module__.partition(".")[0] == "keras"
    return RULES.get(kind.__name__) if from_keras else rule_of_plugin(kind)


def has_rule(op: Any) -> bool:
    """Whether a rule speaks for a layer or operation, so that nobody has to look inside of it."""
    return rule_for(type(op)) is not None


@dataclass(frozen=True, slots=True)
class Kind:
    """The class of a layer or operation, as the target of a call: `Dense`."""

    cls: type

    def __str__(self) -> str:
        return self.cls.__name__


@dataclass
class Rules:
    """The rules of Keras, as the engine asks for them, and what they remember of one model.

    Attributes:
        recorded: The model.
        repairs: Whether attributes may be edited that a layer's own Python reads.
        counted: `{(layer, attribute): (layer, labels)}` of those that say how many there are.
        telling: The layers whose reshapes are told their sizes, instead of their attributes.
        wanting: Those that would have to be, for more to go.
        told: `{(layer, number of its reshape): (layer, {axis: labels})}` of what is told.
        silent: `{layer: channels}` of batch norms where nothing but a constant comes in, if those
            are looked for.
    """

    recorded: Recorded
    repairs: bool = True
    counted: dict[tuple[int, str], tuple[Any, Array]] = field(default_factory=dict)
    telling: frozenset[int] = frozenset()
    wanting: set[int] = field(default_factory=set)
    told: dict[tuple[int, int], tuple[Any, dict[int, Array]]] = field(default_factory=dict)
    silent: dict[int, tuple[Any, Flags]] | None = None

    def find(self, target: Any) -> Entry | None:
        """Return the rule of an operator; it declines where it cannot speak for a call."""
        found = rule_for(target.cls)
        return Entry(partial(self._apply, found), carries=True, written=found)

    def repeatable(self, target: Any) -> bool:
        """Return whether an operator makes the same numbers of the same inputs each time."""
        return "Random" not in str(target)

    def _apply(self, found: Rule | None, flow: Flow, call: Call) -> Any:
        if isinstance(call.op, Alike):
            return _alike(flow, call)
        if isinstance(call.op, Passed):
            return _resized(flow, call)
        if found is None:
            problem = self.recorded.found.problems.get(id(call.op))
            mine = problem and type(call.op).__module__.partition(".")[0] != "keras"
            followed = f", and its call() cannot be followed ({problem})" if mine else ""
            raise Declined(f"it has no rule{followed}")
        if any(getattr(call.op, each, None) for each in ("lora_enabled", "quantization_mode")):
            raise Declined("it is quantized or has LoRA")
        return found(flow, call)


class Alike:
    """Stands for a layer that is entered at several places, and takes the same at each."""

    name = "alike"


def _resized(flow: Flow, call: Call) -> Value:
    """The same tensor, with another size where that is open."""
    value, shape = flow.get(call.args[0]), flow.result_shape(call)
    same = {axis for axis, size in enumerate(shape) if value.shape[axis] == size}
    flow.pin_all(value, [*{*range(value.ndim)} - same], "its size is open")
    groups = (group for group in value.groups if same >= {*group.axes})
    return Value(shape, tuple(Group(extended(group.codes, shape)) for group in groups))


def _alike(flow: Flow, call: Call) -> list[Value]:
    """A layer that is entered at several places takes the same channels at each."""
    given, first = (flow.get(each) for each in call.args)
    flow.align([given, first], given.shape, all)
    return []
