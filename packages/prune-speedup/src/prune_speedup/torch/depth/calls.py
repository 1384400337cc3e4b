"""What each module of a model is given and returns, watched in one forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prune_speedup.torch.depth.standins import Form
from prune_speedup.torch.record.inputs import call, found_in
from prune_speedup.torch.record.isolation import untouched
from prune_speedup.torch.record.kernels import plain_kernels
from prune_toolkit.running.restore import evaluating

__all__ = ["Seen", "watch_modules"]


@dataclass(slots=True)
class Seen:
    """How one module was used.

    Attributes:
        order: When its first run began, counted in runs of modules.
        runs: How often it ran.
        given: Shape and type of the tensor that it works on, if it was given one.
        returned: Shape and type of the tensor that it returned.
        position: Where the tensor that it works on was given,
        name: and the name of that argument.
        form: What it returned; empty where that is in no form that can be imitated.
        read: What else of its results is read, and by whom; empty if nothing is.
    """

    order: int
    runs: int = 1
    given: tuple[tuple[int, ...], torch.dtype] | None = None
    returned: tuple[tuple[int, ...], torch.dtype] | None = None
    position: int = 0
    name: str = ""
    form: Form = field(default_factory=list)
    read: str = ""

    @property
    def keeps_shape(self) -> bool:
        """Whether what it returns can stand where its input stood."""
        return self.given is not None and self.given == self.returned


def watch_modules(model: nn.Module, example_inputs: Any) -> dict[str, Seen]:
    """Run a model once, in eval mode, and tell how each of its modules was used.

    The model is left as it was.
    """
    watcher = _Watcher(model)
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(watcher.enter, with_kwargs=True))
        handles.append(module.register_forward_hook(watcher.leave, with_kwargs=True))
    try:
        with untouched(model), evaluating(model), torch.no_grad(), plain_kernels(model):
            returned = call(model, example_inputs)
        watcher.look("the model", "", returned, returns=True)
    finally:
        for handle in handles:
            handle.remove()
    return watcher.seen


class _Watcher:
    def __init__(self, model: nn.Module) -> None:
        self.seen: dict[str, Seen] = {}
        self._names = {id(module): name for name, module in model.named_modules()}
        self._count = 0
        # What blocks return besides, by identity; the tensors are kept so that none is reused.
        self._besides: dict[int, tuple[Tensor, list[str]]] = {}

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Hear that a module begins."""
        name = self._names[id(module)]
        if name in self.seen:
            self.seen[name].runs += 1
        else:
            self.seen[name] = Seen(self._count)
        self._count += 1
        self.look(name, name, (args, kwargs))

    def look(self, reader: str, within: str, given: Any, *, returns: bool = False) -> None:
        """Find out whether somebody reads what a block returns besides."""
        if not self._besides:
            return
        for tensor in found_in(given).tensors.values():
            for block in self._besides.get(id(tensor), (tensor, []))[1]:
                within_it = within == block or within.startswith(f"{block}.")
                if not within_it and not self.seen[block].read:
                    verb = "returns" if returns else "reads"
                    self.seen[block].read = f"{reader} {verb} what else it computes"

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Note what a module was given and what it has returned."""
        name = self._names[id(module)]
        seen = self.seen[name]
        if seen.runs > 1:
            return
        arguments = _by_name(module, args, kwargs)
        hidden = _first_tensor(output)
        if hidden is None:
            return
        seen.returned = tuple(hidden.shape), hidden.dtype
        alike = [a for a in arguments if (tuple(a[2].shape), a[2].dtype) == seen.returned]
        real = [a for a in arguments if a[2].is_floating_point()]
        for position, key, tensor in (alike or real or arguments)[:1]:
            seen.position, seen.name = position, key
            seen.given = tuple(tensor.shape), tensor.dtype
        known = {id(tensor): (position, key) for position, key, tensor in arguments}
        besides: list[Tensor] = []
        seen.form = _form(output, hidden, known, besides) or []
        for tensor in besides:
            self._besides.setdefault(id(tensor), (tensor, []))[1].append(name)


def _by_name(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[int, str, Tensor]]:
    """Each tensor among the arguments, with its position and its name in the signature."""
    try:
        parameters = [
            name
            for name, each in inspect.signature(module.forward).parameters.items()
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        parameters = []
    places = {name: at for at, name in enumerate(parameters)}
    found = [
        (at, parameters[at] if at < len(parameters) else "", value)
        for at, value in enumerate(args)
        if isinstance(value, Tensor)
    ]
    found += [
        (places.get(name, len(places)), name, value)
        for name, value in kwargs.items()
        if isinstance(value, Tensor)
    ]
    return found


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if type(output) in (list, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def _form(
    output: Any,
    hidden: Tensor,
    known: Mapping[int, tuple[int, str]],
    besides: list[Tensor],
    first: bool = True,
) -> Form | None:
    """Return what an output looks like; None for what cannot be imitated."""
    if output is hidden and first:
        return ["hidden"]
    if isinstance(output, Tensor):
        if id(output) in known:
            return ["input", *known[id(output)]]
        besides.append(output)
        return ["plain", None]
    if type(output) in (list, tuple):
        items = [
            _form(each, hidden, known, besides, first and not at) for at, each in enumerate(output)
        ]
        return None if None in items else [type(output).__name__, *items]
    if isinstance(output, int | float | str | bool | None):
        return ["plain", output]
    return None
