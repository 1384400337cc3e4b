"""What a recording depends on, so that one of an hour ago is used only where nothing has changed.

A forward makes the same calls if its Python is the same, reads the same plain values, and gets
tensors of the same shapes. So a fingerprint holds all of that: the modules and whatever their
attributes hold at any depth, their hooks, the code of their classes with the globals that it reads,
and shape, type, strides and sharing of every tensor. It does not hold the *numbers* in tensors: see
`analysis.depends_on_state` for recordings that depend on those.

What cannot be looked into, such as an object written in C, has no fingerprint, and then nothing is
remembered. Of code that was installed, such as that of a model in transformers, it is seen that a
function was replaced, and not what the function reads of its file.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import weakref
from collections import deque
from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet
from enum import Enum
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from prune_core.registry import manager
from prune_core.traversal import modules_in
from prune_speedup.torch.record.own_code import names_in
from prune_speedup.torch.rules import registry

__all__ = ["Fingerprint", "fingerprint"]

_PLAIN = frozenset(
    {int, float, bool, str, bytes, complex, type(None), type(Ellipsis), type(NotImplemented), range}
    | {torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format, slice}
)
_SIMPLE = frozenset({int, bool, str, type(None)})
"""Of these, what is equal and of one kind is the same."""

_BY_IDENTITY = (
    *(BuiltinFunctionType, MethodWrapperType, ModuleType, logging.Logger, re.Pattern),
    *(torch._ops.OpOverload, torch._ops.OpOverloadPacket),
)
_MOST = 20_000
_MOST_PER_MODULE = 500
"""How many things are looked at before it takes longer than to record again."""

_MOST_BYTES = 1 << 20


_HOOKS = frozenset(name for name in vars(nn.Module()) if "_hooks" in name)


class Fingerprint(NamedTuple):
    """What a recording depends on.

    Attributes:
        content: Two are the same if these are equal.
        objects: What `content` tells by its address, which is true only while all of them live.
        opaque: Whether the model's own code may read what is not in `content`.
    """

    content: Hashable
    objects: tuple[weakref.ref[Any], ...]
    opaque: bool = False

    def same(self, other: Fingerprint) -> bool:
        """Whether nothing differs."""
        return self.content == other.content and all(each() is not None for each in self.objects)


class _UnknownError(Exception):
    """Something that cannot be looked into."""


def fingerprint(model: nn.Module, example_inputs: Any) -> Fingerprint | None:
    """What a recording of a model on its inputs depends on; `None` where that cannot be told."""
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return None  # somebody else's mode has a say in what is called
    walk = _Walk(len(modules_in(model)))
    try:
        content = (_settings(walk), walk.of(model), walk.of(example_inputs), *walk.called())
    except Exception:  # somebody's attributes may fail in any way when they are looked at
        return None
    return Fingerprint(content, tuple(walk.objects), walk.opaque)


def _settings(walk: _Walk) -> Hashable:
    """What torch is told apart from the model, and the rules that there are."""
    return (
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.are_deterministic_algorithms_enabled(),
        torch._C._get_flash_sdp_enabled(),
        torch._C._get_math_sdp_enabled(),
        torch._C._get_mem_efficient_sdp_enabled(),
        torch._C._get_mkldnn_enabled(),
        registry.registered(),
        walk.alive(manager()),  # another one whenever plugins are looked for again
        walk.of(torch_module._global_forward_hooks),
        walk.of(torch_module._global_forward_pre_hooks),
    )


class _Walk:
    """One look at everything that can be reached."""

    def __init__(self, modules: int) -> None:
        self.objects: list[weakref.ref[Any]] = []
        self.opaque = False
        self._left = _MOST + _MOST_PER_MODULE * modules
        self._seen: dict[int, int] = {}
        self._storages: dict[int, int] = {}
        self._kept: list[Any] = []
        self._waiting: list[FunctionType] = []
        self._slots: dict[type, tuple[str, ...]] = {}

    def alive(self, item: Any) -> int:
        """Which thing this is, so long as it is there."""
        self.objects.append(weakref.ref(item))
        return id(item)

    def of(self, item: Any) -> Hashable:
        """What this is; the second time, only that it is the same thing again."""
        kind = type(item)
        if kind in _PLAIN:
            # 1, 1.0 and True are equal, and no forward need treat them alike.
            return (kind, str(item)) if kind is slice or item != item else (kind, item)
        if kind in _EMPTY_OF and not item:
            return (kind,)
        known = self._seen.setdefault(id(item), len(self._seen))
        if known < len(self._seen) - 1:
            return ("again", known)
        self._kept.append(item)  # or something else could get its address meanwhile
        self._left -= 1
        if self._left < 0:
            raise _UnknownError
        return self._look(item)

    def called(self) -> Iterator[Hashable]:
        """The functions of the same files that the code so far names, and those that these name."""
        while self._waiting:
            yield self.of(self._waiting.pop())

    def _look(self, item: Any) -> Hashable:
        if isinstance(item, torch.Tensor):
            return self._tensor(item)
        if isinstance(item, nn.Module) or type(item) in _CONTAINERS:  # as most of what there is
            return self._object(item)
        if isinstance(item, type):
            return self._class(item)
        if isinstance(item, FunctionType):
            return self._function(item)
        if isinstance(item, MethodType):
            return (MethodType, self.of(item.__func__), self.of(item.__self__))
        if isinstance(item, functools.partial):
            return (functools.partial, *map(self.of, (item.func, item.args, item.keywords)))
        if isinstance(item, Enum):
            self.opaque |= _is_opaque(type(item))
            return (type(item).__qualname__, item.name)
        if isinstance(item, np.ndarray):
            if item.nbytes > _MOST_BYTES or item.dtype.hasobject:
                raise _UnknownError
            return (np.ndarray, item.shape, str(item.dtype), item.tobytes())
        if isinstance(item, np.generic):
            return (type(item), item.tobytes())
        if isinstance(item, weakref.ref):
            return (weakref.ref, self.of(item()))
        if isinstance(item, _BY_IDENTITY):
            self.opaque |= _is_opaque(item)
            return self._itself(item)
        if type(item) is object:  # a sentinel, which lives as long as what it is a default of
            return (object, id(item))
        return self._object(item)

    def _object(self, item: Any) -> Hashable:
        """A container, or whatever keeps its state where Python sees it."""
        parts: list[Any] = [dict]
        if type(item) is dict:
            self._add_pairs(parts, item)
            return tuple(parts)
        parts = [self.of(type(item))]
        whole = type(item) in _CONTAINERS
        if isinstance(item, dict):
            self._add_pairs(parts, item)
            whole = True
        elif isinstance(item, list | tuple | deque):
            parts += [self.of(each) for each in item]
            whole = True
        elif isinstance(item, set | frozenset):
            parts.append(frozenset(self.of(each) for each in item))
            whole = True
        if (state := getattr(item, "__dict__", None)) is not None:
            # Half of what a module holds are places for hooks, most often without any.
            without = isinstance(item, nn.Module) and not any(map(state.get, _HOOKS))
            self._add_pairs(parts, state, _HOOKS if without else frozenset())
            whole = True
        if (slots := self._slots.get(type(item))) is None:
            slots = self._slots[type(item)] = _slots_of(type(item))
        for name in slots:
            parts.append((name, self.of(getattr(item, name, None))))
            whole = True
        if not whole:
            if type(item).__module__.partition(".")[0] not in sys.stdlib_module_names:
                raise _UnknownError  # written in C by somebody else: nobody knows what is in there
            parts.append(self._itself(item))
            self.opaque = True
        return tuple(parts)

    def _add_pairs(
        self, parts: list[Any], pairs: dict[Any, Any], without: AbstractSet[Any] = frozenset()
    ) -> None:
        """Add names and what stands under them, in one row: most of it is plain, or empty.

        How many there are comes first, and a kind says whether its value follows, so that no two
        rows read alike: `{"bias": True, "hooks": {}}` is `2, "bias", bool, True, "hooks", dict`.
        """
        parts.append(len(pairs))
        for name, value in pairs.items():
            if name in without:
                continue
            parts.append(name if type(name) is str else self.of(name))
            kind = type(value)
            if kind in _SIMPLE:
                parts.append(kind)
                parts.append(value)
            elif kind in _EMPTY_OF and not value:
                parts.append(kind)
            elif kind is tuple and _SIMPLE.issuperset(map(type, value)):
                parts.append((kind, *value, *map(type, value)))  # sizes, as of a kernel
            else:
                parts.append(self.of(value))

    def _tensor(self, tensor: torch.Tensor) -> Hashable:
        if tensor.layout is not torch.strided:
            raise _UnknownError
        storage, own = tensor.untyped_storage()._cdata, vars(tensor)
        return (
            self.of(type(tensor)),
            tensor.dtype,
            tensor.device,
            tensor.shape,
            tensor.stride(),
            tensor.storage_offset(),
            tensor.requires_grad,
            tensor.is_conj(),
            tensor.is_neg(),
            self._storages.setdefault(storage, len(self._storages)),
            tuple((name, self.of(value)) for name, value in own.items()) if own else (),
        )

    def _itself(self, item: Any) -> Hashable:
        try:
            self.objects.append(weakref.ref(item))
        except TypeError as error:
            raise _UnknownError from error
        return ("object", id(item))

    def _class(self, kind: type) -> Hashable:
        """A class, with the functions that are in it now: it may be given another forward."""
        parts = [self._itself(kind)]
        for base in kind.__mro__[:-1]:
            if base is not kind:
                parts.append(self.of(base))
            elif _is_library(base.__module__):
                functions = [each for each in vars(base).values() if isinstance(each, FunctionType)]
                parts += map(self._itself, functions)
            else:
                parts += [(n, self._member(n, value)) for n, value in [*vars(base).items()]]
        return tuple(parts)

    def _member(self, name: str, value: Any) -> Hashable:
        """What a class holds: functions, and plain values that they may read."""
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            return tuple([self._member(name, each) for each in (value.fget, value.fset)])
        if isinstance(value, FunctionType):
            opaque, content = self.opaque, self.of(value)
            if name == "__init__":  # which has run
                self.opaque = opaque
            return content
        self.opaque |= not name.startswith("__") and _is_opaque(value)
        return self._shallow(value)

    def _function(self, function: FunctionType) -> Hashable:
        """A function: its code, what it was made with, and the globals that it reads."""
        itself, code = self._itself(function), function.__code__
        parts: list[Hashable] = [itself, id(code)]
        self._kept.append(code)
        parts += [self.of(_content(cell)) for cell in function.__closure__ or ()]
        if function.__defaults__ or function.__kwdefaults__:
            parts += [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        if _is_library(function.__module__):
            return tuple(parts)
        if vars(function):
            parts += [(n, self.of(v)) for n, v in vars(function).items()]
        wide, read = function.__globals__, names_in(code)
        self.opaque |= not _LOOKING_ELSEWHERE.isdisjoint(read)
        for name in read:
            value = wide.get(name, _MISSING)
            if isinstance(value, FunctionType) and value.__globals__ is wide:
                parts.append((name, self._itself(value)))
                self._waiting.append(value)
                continue
            if value is _MISSING:  # an attribute, or what is imported there
                self.opaque |= name in sys.modules and not _is_trusted(name)
            else:
                self.opaque |= _is_opaque(value)
            if isinstance(value, FunctionType):
                parts.append((name, self._itself(value)))
            elif isinstance(value, ModuleType) and not _is_library(value.__name__):
                own = vars(value)
                parts += [(name, n, self._shallow(own[n])) for n in read if n in own]
            elif value is not _MISSING:
                parts.append((name, self._shallow(value)))
        return tuple(parts)

    def _shallow(self, value: Any) -> Hashable:
        """What code may read of a global: itself if it is plain, else what is plain in it."""
        if type(value) in _PLAIN:
            return self.of(value)
        if isinstance(value, dict | list | tuple | set | frozenset):
            if len(value) > _FEW:
                return (id(value), len(value))
            items = value.items() if isinstance(value, dict) else value
            return (id(value), *(str(each) for each in items if _is_plain(each)))
        if isinstance(value, type | FunctionType | ModuleType | logging.Logger):
            return self._itself(value)
        state = getattr(value, "__dict__", None) or {}
        return (id(value), *((n, v) for n, v in state.items() if type(v) in _PLAIN))


_CONTAINERS = frozenset({dict, list, tuple, set, frozenset, deque})
_EMPTY_OF = frozenset({dict, list, tuple, set, frozenset, type(nn.Module()._forward_hooks)})
_FEW = 64
_MISSING = object()


_LOOKING_ELSEWHERE = frozenset(
    {"globals", "locals", "vars", "eval", "exec", "open", "__import__", "import_module"}
    | {"__dict__", "__getstate__", "__reduce_ex__", "getattr_static", "DisableTorchFunction"}
)
"""What code names that may read what nobody notices."""

_TRUSTED = frozenset({"torch", "numpy", "math", "functools", "itertools", "collections"}) | {
    *("builtins", "typing", "abc", "copy", "operator", "warnings"),
}
"""Modules of Python and torch that keep no state by which a forward would do something else."""


@functools.cache
def _is_trusted(name: str | None) -> bool:
    """Whether code may read what it likes of a module; of what was installed that is assumed."""
    root = (name or "").partition(".")[0]
    return root in _TRUSTED or (root not in sys.stdlib_module_names and _is_library(name))


def _is_opaque(value: Any) -> bool:
    """Whether code may read more by a global, or a member of a class, than is looked at."""
    if isinstance(value, tuple | frozenset):
        return any(map(_is_opaque, value))
    if isinstance(value, ModuleType):
        return not _is_trusted(value.__name__)
    if isinstance(value, type | FunctionType):
        return not _is_trusted(value.__module__)
    if isinstance(value, BuiltinFunctionType | MethodWrapperType):
        return not isinstance(value.__self__, ModuleType | type | None)
    return type(value) not in _PLAIN and not isinstance(value, _BY_IDENTITY)


def _is_plain(item: Any) -> bool:
    return all(type(each) in _PLAIN for each in (item if isinstance(item, tuple) else (item,)))


_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy"}
_INSTALLED = ("site-packages", "dist-packages")


@functools.cache
def _is_library(name: str | None) -> bool:
    """Whether a module is Python's or was installed: there, only a replaced function is seen."""
    if name is None or name == "__main__":
        return name is None
    if name.startswith("prune_"):  # wherever it lies
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return name.partition(".")[0] in _LIBRARIES or any(each in file for each in _INSTALLED)


_known_slots: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()


def _slots_of(kind: type) -> tuple[str, ...]:
    """The names of what a class keeps beside its `__dict__`; that is settled when it is made."""
    if (known := _known_slots.get(kind)) is None:
        known = _known_slots[kind] = tuple(_slots(kind))
    return known


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                yield name if not name.startswith("__") else f"_{base.__name__.lstrip('_')}{name}"


def _content(cell: Any) -> Any:
    """What a closure holds; nothing yet, perhaps."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
