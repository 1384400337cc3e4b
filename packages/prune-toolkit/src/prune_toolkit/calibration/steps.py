"""Cutting a forward into steps that can be run one after the other on kept inputs.

A step is a call of a module. A step follows those before it if it gets nothing but what they
returned, and what does not depend on the layers to be pruned at all, such as an attention mask.
Then it can be run without running the model:

    embed ─▶ layers.0 ─▶ layers.1 ─▶ … ─▶ norm ─▶ [:, -1] ─▶ head

Here `layers.1` follows `layers.0`. `head` does not follow, because something that is no module
happens to its input on the way, which is had by running the model up to it. For the same reason
a layer is not cut further, into its attention and its MLP: there is an addition between them.

What each module was given and returned is seen in one recorded forward, so that models of any
make are understood, and there is no list of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.utils.hooks import RemovableHandle

__all__ = ["Step", "as_example", "find_steps", "leaves", "rebuilt"]

# How many steps may be had only by running the model up to them.
_MOST_REACHED_ANEW = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one module.

    Attributes:
        name: The module's name; empty for the model itself.
        layers: The names of the layers to be pruned that it runs.
        inputs: What it is called with, as `leaves((args, kwargs))` orders it: the number of a
            value where that is a tensor, None where it is something else.
        outputs: What it returned, in the same way.
        follows: Whether it can be run on what the steps before it returned.
        occurrence: Which of the module's calls it is.
        groups: Its layers in the order of their calls, those together that read the same tensor.
    """

    name: str
    layers: tuple[str, ...]
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    follows: bool
    occurrence: int = 0
    groups: tuple[tuple[str, ...], ...] = ()


def leaves(tree: Any) -> Iterator[Any]:
    """Yield what nested lists, tuples and mappings hold, in a fixed order."""
    if isinstance(tree, Mapping):
        for item in tree.values():
            yield from leaves(item)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from leaves(item)
    else:
        yield tree


def rebuilt(tree: Any, replacements: Iterator[Any]) -> Any:
    """Return the same nested lists, tuples and dicts with other leaves."""
    if isinstance(tree, Mapping):
        return {key: rebuilt(item, replacements) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        items = [rebuilt(item, replacements) for item in tree]
        named = hasattr(tree, "_fields")
        return type(tree)(*items) if named else type(tree)(items)
    return next(replacements)


@dataclass(slots=True)
class _Call:
    """A call of a module in the recorded forward, and the calls that it made in turn."""

    name: str
    module: nn.Module
    inputs: tuple[int | None, ...]
    made: list[_Call]
    occurrence: int = 0
    outputs: tuple[int | None, ...] = ()


def find_steps(model: nn.Module, layers: Mapping[str, nn.Module], example: Any) -> list[Step]:
    """Cut the forward of a model, as fine as it goes without running parts again and again.

    Args:
        model: Not wrapped. It is run once, in eval mode, and left as it was.
        layers: The layers that will be pruned or otherwise changed, by name.
        example: An input of the model: a tuple of positional or a dict of keyword arguments.

    Returns:
        The steps, in their order. Every layer is in exactly one of them.
    """
    root, graph = _recorded(model, example)
    cutter = _Cutter(graph, layers)
    return cutter.steps(root)


class _Cutter:
    """Knows which values depend on the layers, and which layers a call runs."""

    def __init__(self, graph: Any, layers: Mapping[str, nn.Module]) -> None:
        self.names = {id(module): name for name, module in layers.items()}
        self.sizes = {
            name: sum(parameter.numel() for parameter in module.parameters())
            for name, module in layers.items()
        }
        changed = {
            f"{name}.{parameter}" if name else parameter
            for name, module in layers.items()
            for parameter, _ in module.named_parameters()
        }
        self.depends = {
            value for value, names in graph.tensors.items() if not changed.isdisjoint(names)
        }
        for call in graph.calls:
            if not self.depends.isdisjoint(call.inputs()):
                self.depends.update(value for value in call.outputs if value is not None)

    def layers_in(self, call: _Call) -> tuple[str, ...]:
        found = (self.names.get(id(module)) for module in call.module.modules())
        return tuple(dict.fromkeys(name for name in found if name is not None))

    def groups(self, call: _Call) -> tuple[tuple[str, ...], ...]:
        """Return the layers of a call in the order in which they run."""
        groups: list[list[str]] = []
        last: int | None = None
        for inner in _all_calls(call):
            name = self.names.get(id(inner.module))
            if name is None:
                continue
            read = next((value for value in inner.inputs if value is not None), None)
            if groups and read == last:
                groups[-1].append(name)
            else:
                groups.append([name])
            last = read
        every = [name for names in groups for name in names]
        if len(set(every)) < len(every):
            return (self.layers_in(call),)  # a layer that runs twice is seen whole, with the rest
        return tuple(tuple(names) for names in groups)

    def steps(self, root: _Call) -> list[Step]:
        """Replace calls by what they call, wherever that loses nothing."""
        calls = [root]
        half = sum(self.sizes.values()) / 2
        at = 0
        while at < len(calls):
            call = calls[at]
            finer = self._inside(call)
            tried = [*calls[:at], *finer, *calls[at + 1 :]]
            before, after = self._reached_anew(calls), self._reached_anew(tried)
            heavy = sum(self.sizes[name] for name in self.layers_in(call)) > half
            if finer and (after <= before or (heavy and after <= _MOST_REACHED_ANEW)):
                calls = tried
            else:
                at += 1
        return self._linked(calls)

    def _inside(self, call: _Call) -> list[_Call]:
        """Return the calls that a call makes, or nothing if they are not all there is to it."""
        wanted = self.layers_in(call)
        runs = [self.layers_in(inner) for inner in call.made]
        if not wanted or sorted(name for each in runs for name in each) != sorted(wanted):
            return []  # it uses a layer's weight itself, or runs a layer twice
        first = next(place for place, each in enumerate(runs) if each)
        return call.made[first:]

    def _linked(self, calls: Sequence[_Call]) -> list[Step]:
        """Say of each call whether it follows; calls whose results nobody needs are left out."""
        needed = self._needed(calls)
        known: set[int | None] = set()
        steps: list[Step] = []
        for place, call in enumerate(calls):
            if place not in needed:
                continue
            given = {value for value in call.inputs if value in self.depends}
            # What the first step gets depends on nothing that is pruned.
            follows = given <= known if steps else not given
            steps.append(
                Step(
                    call.name,
                    self.layers_in(call),
                    call.inputs,
                    call.outputs,
                    follows,
                    call.occurrence,
                    self.groups(call),
                )
            )
            known.update(call.outputs)
        return steps

    def _needed(self, calls: Sequence[_Call]) -> set[int]:
        wanted: set[int | None] = set()
        needed: set[int] = set()
        for place in range(len(calls) - 1, -1, -1):
            call = calls[place]
            if self.layers_in(call) or not wanted.isdisjoint(call.outputs):
                needed.add(place)
                wanted.update(value for value in call.inputs if value in self.depends)
        return needed

    def _reached_anew(self, calls: Sequence[_Call]) -> int:
        return sum(not step.follows for step in self._linked(calls)[1:])


def _all_calls(call: _Call) -> Iterator[_Call]:
    yield call
    for inner in call.made:
        yield from _all_calls(inner)


def as_example(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what a model was called with in the form of example inputs: a tuple or a dict."""
    if not kwargs:
        return args
    if not args:
        return dict(kwargs)
    bound = signature(model.forward).bind(*args, **kwargs).arguments
    return {**{name: bound[name] for name in list(bound)[: len(args)]}, **kwargs}


def _recorded(model: nn.Module, example: Any) -> tuple[_Call, Any]:
    from prune_core.registry import get_engine

    engine = get_engine("torch", wanted="going through a model block by block")
    recorder = engine.Recorder(model, lambda target: True)
    outermost = _Call("", model, (), [])
    with _noting_calls(model, recorder, outermost):
        recorder.run(example, again=False)
    [root] = outermost.made
    return root, recorder.graph


@contextmanager
def _noting_calls(model: nn.Module, recorder: Any, outermost: _Call) -> Iterator[None]:
    """Note each call of a module while a recorder runs the model."""
    running = [outermost]
    seen: Counter[str] = Counter()

    def values(tree: Any) -> tuple[int | None, ...]:
        return tuple(
            recorder.number(leaf) if isinstance(leaf, Tensor) else None for leaf in leaves(tree)
        )

    def noting(name: str, module: nn.Module) -> list[RemovableHandle]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = _Call(name, module, values((args, kwargs)), [], seen[name])
            seen[name] += 1
            running[-1].made.append(call)
            running.append(call)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            running.pop().outputs = values(output)

        return [
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave),
        ]

    handles: list[RemovableHandle] = []
    try:
        for name, module in model.named_modules():
            if not isinstance(module, ScriptModule):
                handles += noting(name, module)
        yield
    finally:
        for handle in handles:
            handle.remove()
