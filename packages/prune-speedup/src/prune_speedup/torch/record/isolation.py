"""Run a model's forward and leave no trace of it: modes, buffers, attributes and random numbers."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from operator import is_, methodcaller
from typing import Any

import torch
from torch import nn

from prune_core.traversal import named_modules
from prune_toolkit.running.random_state import put_random, take_random

__all__ = ["Before", "holds_still", "on_processor", "put_back", "untouched"]


def holds_still(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a dict holds the very objects that a copy of it holds, in the same order."""
    return (
        len(now) == len(before)
        and all(map(is_, now.values(), before.values()))
        and all(map(is_, now, before))
    )


def put_back(now: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Let a dict hold again what a copy of it holds; one that does is left alone."""
    if not holds_still(now, before):
        now.clear()
        now.update(before)


class Before:
    """What a model was before a forward: modes, attributes, what they hold, and buffers.

    The dicts, lists and sets that modules keep get their own content back: a forward that fills a
    cache or hooks its layers on first use will do so on its next first use.

    Buffers, and tensors that are plain attributes, are copied because a forward may write into
    them. Parameters are not, because a copy would double the memory for something that hardly any
    forward does; a `Recorder` sees such a write coming, and copies then.

    Attributes:
        still: Whether there was nothing to put back, beside random numbers, when `changes` looked.
    """

    still = False

    def __init__(self, model: nn.Module) -> None:
        """Remember it."""
        self._attributes = [(name, each, dict(vars(each))) for name, each in named_modules(model)]
        self._inner: list[tuple[str, str, Any, Any]] = []
        self._empty: list[Any] = []  # most of the dicts that modules hold
        self._tensors: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        for name, _, saved in self._attributes:
            for key, value in saved.items():
                kind = type(value)
                if kind in _HOLDING:
                    if value:
                        self._inner.append((name, key, value, value.copy()))
                        if key == "_buffers":
                            self._note_tensors(name, value)
                    else:
                        self._empty.append(value)
                elif kind not in _PLAIN:
                    self._note_tensors(name, {key: value})
        self._content = self._content_now()
        self._random = take_random()

    def _note_tensors(self, name: str, items: Mapping[str, Any]) -> None:
        for key, item in items.items():
            if isinstance(item, torch.Tensor):
                self._tensors.append((f"{name}.{key}".lstrip("."), item, item.detach().clone()))

    def changes(self) -> dict[str, Any]:
        """What the model keeps now and did not keep before, by module and attribute.

        Tensors that were written into are copied, for they get their old numbers back.
        """
        written = [each for each in self._tensors if _is_written(*each[1:])]
        changed: dict[str, Any] = {name: tensor.detach().clone() for name, tensor, _ in written}
        if self._holds_still():
            self.still = not written
            return changed
        moved = [each for each in self._attributes if not holds_still(vars(each[1]), each[2])]
        for name, module, saved in moved:
            for key, value in vars(module).items():
                before = saved.get(key, _MISSING)
                if before is not value and key not in _BOOKKEEPING and not _is_same(before, value):
                    changed[f"{name}.{key}".lstrip(".")] = value
        inner = [each for each in self._inner if not _has_still(*each[2:])] + self._filled()
        for name, key, held, content in inner:
            if key in ("_buffers", "_parameters"):
                for within, tensor in held.items():
                    if content.get(within) is not tensor:
                        changed[f"{name}.{within}".lstrip(".")] = tensor
            elif key not in _BOOKKEEPING and not _is_same(content, held):
                changed[f"{name}.{key}".lstrip(".")] = held.copy()
        self.still = not (written or moved or inner)
        return changed

    def _holds_still(self) -> bool:
        """Whether all attributes, and all that they hold, are the very objects that they were.

        Most often they are, and all in one row are looked at much faster than each by itself.
        """
        if any(self._empty):
            return False
        (sizes, content), (before_sizes, before) = self._content_now(), self._content
        return sizes == before_sizes and all(map(is_, content, before))

    def _content_now(self) -> tuple[list[int], list[Any]]:
        """How many things all attributes are, and what they hold, and these things in a row."""
        held = [each for _, _, each, _ in self._inner]
        dicts = [vars(module) for _, module, _ in self._attributes]
        dicts += [each for each in held if isinstance(each, dict)]
        all_held = [*dicts, *(each for each in held if not isinstance(each, dict))]
        values = chain.from_iterable(map(methodcaller("values"), dicts))  # each in its own order
        return [*map(len, all_held)], [*chain.from_iterable(all_held), *values]

    def _filled(self) -> list[tuple[str, str, Any, Any]]:
        """What was empty and is no longer, like what is in `_inner`."""
        filled = {id(held): held for held in self._empty if held}
        return [
            (name, key, held, type(held)())
            for name, _, saved in (self._attributes if filled else ())
            for key, held in saved.items()
            if id(held) in filled
        ]

    def restore(self, *, still: bool = False) -> None:
        """Put it back.

        Args:
            still: Whether it is known that nothing but random numbers is to be put back.
        """
        put_random(self._random)
        if still:
            return
        for _, module, saved in self._attributes:
            put_back(vars(module), saved)
        for _, _, holder, held in self._inner:
            holder.clear()
            (holder.extend if isinstance(holder, list) else holder.update)(held)
        for holder in self._empty:
            if holder:
                holder.clear()
        with torch.no_grad():
            for _, tensor, content in self._tensors:
                if _is_written(tensor, content):
                    tensor.copy_(content)


_BOOKKEEPING = frozenset(vars(nn.Module()))
_HOLDING = frozenset({dict, OrderedDict, list, set})
_PLAIN = frozenset({bool, int, float, str, tuple, type(None)})
_MISSING = object()


def _is_written(tensor: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether a tensor holds other numbers; some norms write their statistics past its version."""
    return not tensor.is_meta and not (tensor.shape == before.shape and torch.equal(tensor, before))


def _has_still(now: Any, before: Any) -> bool:
    """Whether a dict, a list or a set holds the very objects that a copy of it holds."""
    if isinstance(now, dict):
        return holds_still(now, before)
    if isinstance(now, list):
        return len(now) == len(before) and all(map(is_, now, before))
    return set(map(id, now)) == set(map(id, before))


def _is_same(before: Any, now: Any) -> bool:
    """Whether an attribute still has its value; of lists and dicts, whether they hold the same."""
    if before is now:
        return True
    if type(before) is not type(now):
        return False
    if isinstance(now, dict):
        return before.keys() == now.keys() and all(_is_same(before[key], now[key]) for key in now)
    if isinstance(now, list | tuple):
        return len(before) == len(now) and all(map(_is_same, before, now))
    return isinstance(now, int | float | str | set | frozenset) and bool(before == now)


@contextmanager
def untouched(model: nn.Module, before: Before | None = None) -> Iterator[Before]:
    """Put back, on leaving, whatever a forward changed in the model.

    Args:
        model: The model.
        before: What it is, if that is known.
    """
    before = Before(model) if before is None else before
    try:
        yield before
    finally:
        before.restore()


@contextmanager
def on_processor() -> Iterator[None]:
    """Make new tensors on the processor, whatever device the user has made the default.

    What is known of a model lives there, beside numpy. Nothing is done where nothing has to be:
    a default device costs something at every call of torch.
    """
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
            yield
