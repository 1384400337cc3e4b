"""A recorded forward in the vocabulary of certificates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from prune_speedup.engine.graph import ALIAS_WRITE, Call, Graph, Ref, refs_in, replace_refs, text_of

__all__ = ["LOWERINGS", "Lowering", "Program", "Step", "lower", "lowers"]


@dataclass(slots=True)
class Step:
    """One operator of a program.

    Attributes:
        op: Its name in the vocabulary.
        ins: The values that it reads.
        outs: The values that it makes.
        told: What it is told besides.
        source: The operator of torch and the module that it comes from, for readers.
    """

    op: str
    ins: list[int]
    outs: list[int]
    told: dict[str, Any]
    source: str


@dataclass
class Program:
    """Steps in the order in which they ran.

    Attributes:
        steps: Those that an output depends on.
        shapes: The shape of each value.
        outputs: The values that the model returned.
        recorded: The value of the recording that a value is, where it is one.
        loose: Values that come from no input and no tensor of the model, and what they are.
        unruled: Operators that no lowering speaks for, by their step's first result.
    """

    steps: list[Step] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    recorded: dict[int, int] = field(default_factory=dict)
    loose: dict[int, str] = field(default_factory=dict)
    unruled: dict[int, str] = field(default_factory=dict)

    def needed(self) -> None:
        """Leave out the steps that no output depends on."""
        wanted, steps = set(self.outputs), []
        for step in reversed(self.steps):
            if step.told.get("call") == INPUT or wanted.intersection(step.outs):
                wanted.update(step.ins)
                while len(step.outs) > 1 and step.outs[-1] not in wanted:
                    step.outs.pop()
                steps.append(step)
        self.steps = steps[::-1]
        self.loose = {value: what for value, what in self.loose.items() if value in wanted}


INPUT = "what both models are given"

LOWERINGS: dict[str, Callable[["Lowering", Call], bool | None]] = {}
"""By an operator's name without its underscore: what says it in the vocabulary, if it can."""


def lowers(*names: str) -> Callable[[Callable[["Lowering", Call], bool | None]], Any]:
    """Register a lowering; one that returns False could not do it."""

    def register(function: Callable[["Lowering", Call], bool | None]) -> Any:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


class Lowering:
    """Writes the program of a recording."""

    def __init__(self, graph: Graph) -> None:
        """Begin with nothing."""
        self.graph = graph
        self.program = Program()
        self._made: dict[int, int] = {}
        self._fills: dict[int, Any] = {}
        self._moves: dict[int, tuple[int, list[Any]]] = {}
        self._memory: dict[int, tuple[int, list[Any]]] = {}
        self._source = ""

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value of the program."""
        return self.program.shapes[value]

    def new(self, shape: Sequence[int]) -> int:
        """Number a new value."""
        self.program.shapes.append(tuple(map(int, shape)))
        return len(self.program.shapes) - 1

    def read(self, ref: Ref) -> int:
        """The value of the program that an argument is."""
        if ref.index not in self._made:
            self._source = "a tensor that the model keeps elsewhere"
            what = "a tensor that is no parameter, no buffer and no input"
            value = self.given(self.graph.metas[ref.index].shape, what)
            self.program.loose[value] = what
            self.bind(ref.index, value)
        return self._made[ref.index]

    def bind(self, recorded: int | None, value: int) -> None:
        """Say which value of the recording a value of the program is."""
        if recorded is not None:
            self._made[recorded] = value
            self.program.recorded.setdefault(value, recorded)

    def emit(
        self, op: str, ins: Sequence[int], shapes: Sequence[Sequence[int]], **told: Any
    ) -> list[int]:
        """Add a step; returns the values that it makes."""
        outs = [self.new(shape) for shape in shapes]
        self.program.steps.append(Step(op, list(ins), outs, told, self._source))
        return outs

    def given(self, shape: Sequence[int], what: str = INPUT) -> int:
        """What both models are given."""
        return self.emit("same", [], [shape], call=what)[0]

    def move(self, value: int, shape: Sequence[int], *moves: list[Any]) -> int:
        """Move numbers; a tensor of one number stays one."""
        source = self._fills.get(value)
        if source is not None:
            made = self.fill(source, shape)
        else:
            made = self.emit("move", [value], [shape], moves=list(moves))[0]
        self._moves[made] = value, list(moves)
        return made

    def fill(self, number: Any, shape: Sequence[int]) -> int:
        """A tensor of one number."""
        value = self.emit("fill", [], [shape], value=number, shape=list(shape))[0]
        self._fills[value] = number
        return value

    def reshape(self, value: int, shape: Sequence[int]) -> int:
        """The same numbers in another shape."""
        if self.shape(value) == tuple(shape):
            return value
        return self.move(value, shape, ["reshape", list(shape)])

    def pointwise(self, function: str, arguments: Sequence[Any]) -> int:
        """A function of single numbers; values of the program are `Ref`s, and broadcast."""
        ins: list[int] = []
        plain = []
        for argument in arguments:
            if isinstance(argument, Ref):
                plain.append({"value": len(ins)})
                ins.append(argument.index)
            else:
                plain.append(argument)
        told: dict[str, Any] = {"function": function, "arguments": plain}
        return self.emit("pointwise", ins, [broadcast([self.shape(i) for i in ins])], **told)[0]

    def along(
        self, values: Sequence[int], function: str, size: dict[int, int], *told: Any, count: int = 1
    ) -> list[int]:
        """A function of rows along axes, with their lengths afterwards; the axes stay."""
        shape = broadcast([self.shape(value) for value in values])
        shape = tuple(size.get(axis, length) for axis, length in enumerate(shape))
        axes, sizes = sorted(size), [size[axis] for axis in sorted(size)]
        more = {"told": list(told)} if told else {}
        kind: dict[str, Any] = {"function": function, "axes": axes, "size": sizes, **more}
        return self.emit("along", values, [shape] * count, **kind)

    def outputs(self, call: Call) -> list[tuple[int, ...]]:
        """The shapes that a call made."""
        return [self.graph.metas[o].shape for o in call.outputs if o is not None]

    def call(self, call: Call) -> None:
        """Lower one call of the recording."""
        self._source = f"{text_of(call.target)} in {call.module or 'the model'}"
        lowering = LOWERINGS.get(call.name) or LOWERINGS.get(call.name.rstrip("_"))
        before = len(self.program.steps), len(self.program.shapes)
        if lowering is not None and all(ref is not None for ref in call.outputs[:1]):
            if lowering(self, call) is not False:
                self._note_memory(call)
                return
            del self.program.steps[before[0] :], self.program.shapes[before[1] :]
        self.any(call)

    def memory(self, recorded: int) -> tuple[int, list[Any]]:
        """Whose memory a value lies in, as far as is known, and the moves that lead to its part."""
        return self._memory.get(recorded, (recorded, []))

    def _note_memory(self, call: Call) -> None:
        """Note which results lie in the memory of an argument."""
        refs = refs_in(call.args)
        if refs and (call.name.endswith("_") or call.target == ALIAS_WRITE):
            if call.outputs[0] is not None:
                self._memory[call.outputs[0]] = self.memory(refs[0].index)
            return
        given = {
            self._made[ref.index]: ref.index for ref in reversed(refs) if ref.index in self._made
        }
        for output in (output for output in call.outputs if output is not None):
            value, moves = self._made.get(output), list[Any]()
            while value in self._moves and value not in given:
                value, more = self._moves[value]
                moves = [*more, *moves]
            if value in given:
                root, before = self.memory(given[value])
                self._memory[output] = root, [*before, *moves]

    def any(self, call: Call) -> None:
        """A call of which nothing is known but that equal inputs give equal results."""
        numbers: dict[int, int] = {}
        refs = refs_in((call.args, call.kwargs))
        ins = [self.read(ref) for ref in dict.fromkeys(refs)]
        for ref in refs:
            numbers.setdefault(ref.index, len(numbers))
        plain = replace_refs(
            (list(call.args), call.kwargs), lambda ref: f"value {numbers[ref.index]}"
        )
        made = [o for o in call.outputs if o is not None]
        if not made:
            return
        self._source = f"{text_of(call.target)} in {call.module or 'the model'}"
        shapes = [self.graph.metas[o].shape for o in made]
        outs = self.emit("same", ins, shapes, call=f"{text_of(call.target)}{plain!r}")
        self.program.unruled[outs[0]] = text_of(call.target)
        if torch.Tag.nondeterministic_seeded in getattr(call.target, "tags", ()):
            self.program.loose[outs[0]] = "random numbers"
        for recorded, value in zip(made, outs, strict=True):
            self.bind(recorded, value)


def broadcast(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The shape that shapes have together."""
    ndim = max((len(shape) for shape in shapes), default=0)
    wide = [(1,) * (ndim - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((s for s in sizes if s != 1), 1) for sizes in zip(*wide, strict=True))


def lower(graph: Graph, inputs: int, outputs: int) -> Program:
    """The program of the first run of a recording.

    Args:
        graph: The recording.
        inputs: How many of its inputs belong to the first run.
        outputs: How many of its outputs do.
    """
    from prune_speedup.torch.certificate import (  # noqa: F401 - they register
        layers,
        numbers,
        places,
    )

    lowering = Lowering(graph)
    for at, index in enumerate(dict.fromkeys(graph.inputs[:inputs])):
        lowering._source = f"input {at}"
        lowering.bind(index, lowering.given(graph.metas[index].shape))
    for index, names in sorted(graph.tensors.items(), key=lambda item: item[1][0]):
        lowering._source = names[0]
        told = {"name": names[0]}
        lowering.bind(index, lowering.emit("tensor", [], [graph.metas[index].shape], **told)[0])
    for call in graph.calls[: graph.first]:
        lowering.call(call)
    program = lowering.program
    program.outputs = [lowering.read(Ref(index)) for index in graph.outputs[:outputs]]
    program.needed()
    return program
