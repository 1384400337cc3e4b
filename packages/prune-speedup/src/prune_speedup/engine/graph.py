"""The one small graph that everything else reads: calls of operators between numbered values.

A value is a tensor at one moment of one forward. An operator that works in place makes a new
value, so that a rule never has to think about time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

__all__ = [
    "ALIAS_WRITE",
    "Call",
    "Graph",
    "Meta",
    "Ref",
    "name_of",
    "refs_in",
    "replace_refs",
    "text_of",
]


ALIAS_WRITE = "prune.alias_write"
"""The call that stands for "this value changed because memory it shares was written to"."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a tensor stood among the arguments of a call: the number of its value."""

    index: int


class Meta(NamedTuple):
    """What is known of a value without its numbers.

    Attributes:
        shape: The sizes.
        dtype: The framework's own type.
        real: Whether it holds real or complex numbers, rather than counts, places or flags.
    """

    shape: tuple[int, ...]
    dtype: Any
    real: bool


@dataclass(slots=True)
class Call:
    """One operator, as it was called.

    Attributes:
        target: The operator, for example `torch.ops.aten.relu.default`; its text is its name.
        args: Positional arguments, every tensor replaced by a `Ref`.
        kwargs: The same for keyword arguments.
        outputs: The values it made, in order; `None` where the operator returned no tensor.
        module: The dotted name of the innermost module that was running ("" is the model).
        positions: Where the positional arguments stand by name, and their defaults.
        place: Where in the model's source the call stands that led here.
        site: The call of the framework in the model's Python that led here, if it was one told
            sizes.
        given: The numbers that this call was given.
        bounds: What each of these numbers says of a slice, where they make an index.
        op: The framework's own object that was called, if it has settings besides its arguments.

    Once it is recorded, its arguments are never changed.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[int | None]
    module: str
    positions: Mapping[str, tuple[int, Any]] = field(default_factory=dict)
    place: tuple[Any, ...] = ()
    site: Any = None
    given: tuple[Any, ...] = ()
    bounds: tuple[Any, ...] = ()
    op: Any = None
    _inputs: list[int] | None = field(default=None, init=False, repr=False, compare=False)
    _name: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The operator's name without its namespace, such as `relu` or `add_`."""
        if self._name is None:
            self._name = name_of(self.target)
        return self._name

    def argument(self, name: str) -> Any:
        """The argument that the operator's schema calls so, or its default.

        An operator that has no argument of this name has `None` there: overloads differ in what
        they are told.
        """
        if name in self.kwargs:
            return self.kwargs[name]
        position, default = self.positions.get(name, (len(self.args), None))
        return self.args[position] if position < len(self.args) else default

    def inputs(self) -> list[int]:
        """The numbers of the values it reads, in order, repeated where one is read twice."""
        if self._inputs is None:
            self._inputs = [ref.index for ref in refs_in((self.args, self.kwargs))]
        return self._inputs


@dataclass(slots=True)
class Graph:
    """The calls of one forward.

    Attributes:
        calls: In the order in which they ran.
        metas: Shape and type of every value.
        tensors: Every parameter and buffer that the forward read: value number to the names it
            goes by (several where it is tied).
        parameters: The values among `tensors` that are parameters rather than buffers.
        inputs: The values that came from the example inputs.
        outputs: The values that the model returned.
        shown: The values that it returned only because it was asked for what it has inside.
        asked_for: Parameters and buffers that it read only for that.
        unread: Names of parameters and buffers that the forward did not touch.
        kept: Values that modules keep when the forward is over, and that nothing else reads.
        written: Values of parameters and buffers that the forward has written, or that are kept.
        left: Values that leave torch, such as by `numpy()`, and the function that they leave by.
        opaque: Types of returned objects that hold nothing that could be found.
        again: The first call of a second run, where the first one changed what the model keeps.
        trained: The first call of a second run, in train mode, if there was one.
        opened: The first call of a run that saw everything where it looked for what is not zero,
            if there was one.
        also: Further runs that were recorded, each with its first call.
        decisions: What the calls saw that decided something by numbers, in their order.
        by_shapes: Whether its first run does nothing by the numbers that its products make.
        asks_size: Whether its own Python asks a tensor for its size, as far as is seen.
        knows_width: Whether its own Python may know how wide anything is, as that of the last run.
    """

    calls: list[Call] = field(default_factory=list)
    metas: list[Meta] = field(default_factory=list)
    tensors: dict[int, tuple[str, ...]] = field(default_factory=dict)
    parameters: set[int] = field(default_factory=set)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    asked_for: set[int] = field(default_factory=set)
    unread: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    left: dict[int, str] = field(default_factory=dict)
    opaque: list[str] = field(default_factory=list)
    again: int | None = None
    trained: int | None = None
    opened: int | None = None
    also: list[tuple[Any, int]] = field(default_factory=list)
    decisions: list[tuple[Any, ...]] = field(default_factory=list)
    by_shapes: bool = False
    asks_size: bool = False
    knows_width: bool = True

    @property
    def first(self) -> int:
        """How many calls the first run made, in eval mode and as the example takes it."""
        return self.end_of_run(0)

    @property
    def told_by_shapes(self) -> bool:
        """Whether nothing that was recorded does anything by the numbers of products."""
        return self.by_shapes and self.first == len(self.calls)

    def end_of_run(self, position: int) -> int:
        """The end of the run that a call belongs to."""
        starts = (self.again, self.trained, self.opened, *(start for _, start in self.also))
        later = [start for start in starts if start is not None and start > position]
        return min(later, default=len(self.calls))

    def add_value(self, meta: Meta) -> int:
        """Number a new value."""
        self.metas.append(meta)
        return len(self.metas) - 1


_PLAIN = frozenset({int, float, bool, str, type(None)})


@cache
def text_of(target: Any) -> str:
    """`aten.relu.default`: an operator's full name, which torch would put together each time."""
    return str(target)


@cache
def name_of(target: Any) -> str:
    """An operator's name without its namespace and overload."""
    parts = text_of(target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def refs_in(tree: object) -> list[Ref]:
    """Every `Ref` in nested lists, tuples and dicts of arguments."""
    if isinstance(tree, Ref):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if not isinstance(tree, list | tuple):
        return []
    # Most arguments are plain numbers, for which a call would be too much.
    return [ref for item in tree if type(item) not in _PLAIN for ref in refs_in(item)]


def replace_refs(tree: Any, make: Callable[[Ref], Any]) -> Any:
    """The same nested arguments with `make(ref)` in the place of every `Ref`."""
    if isinstance(tree, Ref):
        return make(tree)
    if isinstance(tree, list | tuple):
        return type(tree)(replace_refs(item, make) for item in tree)
    if isinstance(tree, dict):
        return {key: replace_refs(item, make) for key, item in tree.items()}
    return tree
