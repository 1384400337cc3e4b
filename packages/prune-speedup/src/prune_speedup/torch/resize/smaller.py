"""Modules that are corrected: each gets a class of its own, and copies of it get that class too.

The methods of the class are those of the module's old one, with the corrected expressions going
through a function of ours (see `rewriting`). So they are right whoever calls them and however
often. An object's class survives what an instance's attributes and hooks may not: whoever copies
or pickles the module gets the class again, also where the old class says itself how it is copied.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.torch.record.call_sites import with_numbers
from prune_speedup.torch.record.source_places import Span
from prune_speedup.torch.resize.corrections import Becomes, Correction, Path, Where, become
from prune_speedup.torch.resize.functions import functions_in, functions_of, with_function
from prune_speedup.torch.resize.rewrite import (
    Edit,
    kind_at,
    name_of,
    original_of,
    rewritten,
    text_of,
)

__all__ = ["Watch", "correct", "corrections_of", "kept_attributes", "plain_class"]

_CORRECTIONS, _ATTRIBUTES = "_prune_corrections", "_prune_attributes"

Watch = Callable[[Path, tuple[Any, ...], dict[str, Any]], tuple[Any, Any]]
"""Told the path, the arguments and the keyword arguments of a call, before it is made, it returns
those with which it is made."""


def corrections_of(module: nn.Module) -> tuple[Correction, ...]:
    """The corrections that a module has."""
    found: tuple[Correction, ...] = getattr(type(module), _CORRECTIONS, ())
    return found


def kept_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes that copies of a module get beside what its class copies."""
    return dict(getattr(type(module), _ATTRIBUTES, ()))


def correct(
    module: nn.Module,
    corrections: tuple[Correction, ...],
    attributes: tuple[tuple[str, Any], ...] = (),
    watch: Watch | None = None,
) -> None:
    """Give a module the class that has these corrections, and no others.

    Args:
        module: Any module; only its class changes.
        corrections: All that it is to have.
        attributes: What its own way of being copied would forget.
        watch: What the corrected calls go through instead.

    Raises:
        SpeedupError: The source is not there, or is another.
    """
    base = plain_class(type(module))
    if not corrections and not attributes:
        module.__class__ = base
    elif watch is None:
        module.__class__ = _smaller_class(base, corrections, attributes)
    else:
        module.__class__ = _made_class(base, corrections, attributes, watch)


class _Smaller:
    """What classes with corrections have in common: how their objects are copied."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Keep from a class the news that it has a subclass: it has none that counts."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as the plain class does, and note what to do when it is back."""
        kind: Any = type(self)
        base, made = plain_class(kind), super().__reduce_ex__(protocol)
        if isinstance(made, str):
            return made
        function, args, *rest = made
        args = tuple(base if arg is kind else arg for arg in args)
        state, items, pairs, setter = (*rest, None, None, None, None)[:4]
        recipe = getattr(kind, _CORRECTIONS), getattr(kind, _ATTRIBUTES)
        return _made_again, (function, args, *recipe), _State(state, setter), items, pairs

    def __setstate__(self, state: Any) -> None:
        """Take a state as the plain class does, and put back what that forgets."""
        inner, setter = state if isinstance(state, _State) else (state, None)
        if setter is not None:
            setter(self, inner)
        elif inner is not None:
            super().__setstate__(inner)  # type: ignore[misc]
        vars(self).update(getattr(type(self), _ATTRIBUTES))


class _State(NamedTuple):
    """The state of an object, and what is to set it if not the object itself."""

    inner: Any
    setter: Callable[[Any, Any], None] | None


def _made_again(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    corrections: tuple[Correction, ...],
    attributes: tuple[tuple[str, Any], ...],
) -> Any:
    made = function(*args)
    made.__class__ = _smaller_class(plain_class(type(made)), corrections, attributes)
    return made


def _copied(base: type) -> Callable[[Any, Any], Any]:
    """`__deepcopy__` of a class that has one of its own."""

    def __deepcopy__(self: Any, memo: Any) -> Any:  # noqa: N807
        made = base.__deepcopy__(self, memo)  # type: ignore[attr-defined]
        if type(made) is base:
            made.__class__ = type(self)
        vars(made).update(getattr(type(self), _ATTRIBUTES))
        return made

    return __deepcopy__


def plain_class(kind: type) -> type:
    """Return the class without corrections."""
    return kind.__mro__[2] if issubclass(kind, _Smaller) else kind


_classes: WeakValueDictionary[Any, type] = WeakValueDictionary()


def _smaller_class(
    base: type,
    corrections: tuple[Correction, ...],
    attributes: tuple[tuple[str, Any], ...],
) -> type:
    """One class for all modules of a kind that need the same."""
    # Somebody may have given the class another method meanwhile.
    methods = tuple(id(function) for _, function in functions_of(base))
    key = base, corrections, repr(attributes), methods
    if (known := _classes.get(key)) is None:
        known = _classes[key] = _made_class(base, corrections, attributes, None)
    return known


def _made_class(
    base: type,
    corrections: tuple[Correction, ...],
    attributes: tuple[tuple[str, Any], ...],
    watch: Watch | None,
) -> type:
    units: dict[tuple[str, str], _Unit] = {}
    for correction in corrections:
        _add(units, correction)
    functions = list(functions_of(base))
    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        _CORRECTIONS: corrections,
        _ATTRIBUTES: attributes,
    }
    if hasattr(base, "__deepcopy__"):
        namespace["__deepcopy__"] = _copied(base)
    for unit in units.values():
        found = [
            (name, function)
            for name, function in functions
            if name_of(function.__code__) == unit.name[1]
        ]
        if not found:
            raise SpeedupError(
                f"{base.__qualname__} has no {unit.name[1]}; has its source changed?"
            )
        new = _made_function(unit, found[0][1], base, watch)
        for name, function in found:
            static = next(vars(kind)[name] for kind in base.__mro__ if name in vars(kind))
            namespace[name] = with_function(namespace.get(name, static), function, new)
    return type(base.__name__, (_Smaller, base), namespace)


@dataclass(slots=True)
class _Change:
    """What is done at one expression.

    Attributes:
        where: The expression.
        path: How it was reached.
        numbers: What its numbers become.
        inner: The functions that it calls in which something is done as well.
    """

    where: Where
    path: Path
    numbers: dict[int, Becomes] = field(default_factory=dict)
    inner: "dict[tuple[str, str], _Unit]" = field(default_factory=dict)


@dataclass(slots=True)
class _Unit:
    """A function in which something is changed.

    Attributes:
        name: Of the Python module, and its own.
        changes: What is changed, by the expression.
        made: Functions that it was met as, and what they became.
    """

    name: tuple[str, str]
    changes: dict[Span, _Change] = field(default_factory=dict)
    made: list[tuple[FunctionType, FunctionType]] = field(default_factory=list)


def _add(units: dict[tuple[str, str], _Unit], correction: Correction) -> None:
    path = correction.path
    known: dict[tuple[str, str], _Unit] = {}
    holder = units
    change: _Change | None = None
    for at, where in enumerate(path):
        name = where.namespace, where.function
        # A function that calls itself is the same function each time.
        unit = known.get(name) or holder.get(name) or _Unit(name)
        known[name] = holder[name] = unit
        change = unit.changes.setdefault(where.span, _Change(where, path[: at + 1]))
        holder = change.inner
    assert change is not None
    change.numbers.update(correction.numbers)


def _made_function(
    unit: _Unit, function: FunctionType, base: type, watch: Watch | None
) -> FunctionType:
    """A function with all that is to be done in it."""
    function = original_of(function)
    for known, made in unit.made:
        if known is function:
            return made
    first = function.__code__.co_firstlineno
    edits: dict[Span, Edit] = {}
    for change in unit.changes.values():
        span = change.where.span
        there = (span[0] + first, span[1] + first, span[2], span[3])
        if (text := text_of(function.__code__, there)) != change.where.text:
            raise SpeedupError(
                f"{function.__qualname__} reads {text!r} where it read {change.where.text!r} when "
                "the model was made smaller; its source has changed"
            )
        kind, name = kind_at(function, there)
        above = _above(base, function, name) if kind == "super" else None
        kind = "call" if kind == "super" and above is None else kind
        edits[there] = kind, _editor(change, kind, above, base, watch)
    unit.made.append((function, rewritten(function, edits)))
    return unit.made[-1][1]


def _above(base: type, function: FunctionType, name: str) -> FunctionType | None:
    """What `super().name` is in a method of one of the classes that a class is made of."""
    owner = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    classes = list(base.__mro__)
    here = owner["__class__"].cell_contents if "__class__" in owner else None
    after = classes[classes.index(here) + 1 :] if here in classes else []
    found = next((vars(kind)[name] for kind in after if name in vars(kind)), None)
    return found if isinstance(found, FunctionType) else None


def _editor(
    change: _Change, kind: str, above: FunctionType | None, base: type, watch: Watch | None
) -> Callable[..., Any]:
    """What an expression goes through."""
    numbers, where = dict(change.numbers), f"{change.where.text} in {change.where.function}"
    swap = _swapper(change.inner, base, watch) if change.inner else None
    path = change.path

    def told(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if watch is not None and (watched := watch(path, args, kwargs)) is not None:
            return watched
        return with_numbers(
            args,
            kwargs,
            lambda at, number: become(numbers[at], number, where) if at in numbers else number,
        )

    def operand(value: Any) -> Any:
        return told((value,), {})[0][0]

    def call(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if swap is not None:
            function = swap(function)
        if numbers or watch is not None:
            args, kwargs = told(args, kwargs)
        return function(*args, **kwargs)

    def call_above(owner: Any, /, *args: Any, **kwargs: Any) -> Any:
        return call(above, owner, *args, **kwargs)

    return {"call": call, "super": call_above, "operands": operand}[kind]


def _swapper(
    units: "dict[tuple[str, str], _Unit]", base: type, watch: Watch | None
) -> Callable[[Any], Any]:
    """What gives for a function that is about to be called the one in which something is done.

    A function is looked at when it is met for the first time. Then it is only compared with those
    that are known, which a compiler can follow.
    """
    functions: list[tuple[Any, Any]] = []
    methods: list[tuple[Any, Any]] = []

    def learned(function: FunctionType) -> Any:
        for inner in list(functions_in(function)):
            unit = _unit_of(inner, units)
            if unit is not None:
                return with_function(function, inner, _made_function(unit, inner, base, watch))
        return function

    def swap(function: Any) -> Any:
        for known, new in functions:
            if function is known:
                return new
        if isinstance(function, FunctionType):
            functions.append((function, learned(function)))
            return functions[-1][1]
        # A method is another object each time it is asked for, and an object's class has its call.
        owner = function.__self__ if isinstance(function, MethodType) else function
        method = function.__func__ if isinstance(function, MethodType) else type(function).__call__
        for known, new in methods:
            if method is known:
                return function if new is known else partial(new, owner)
        if isinstance(method, FunctionType):
            methods.append((method, learned(method)))
            return swap(function)
        return function

    return swap


def _unit_of(function: FunctionType, units: "dict[tuple[str, str], _Unit]") -> _Unit | None:
    """What is to be done in a function; the same one may be imported under another name."""
    name = name_of(function.__code__)
    alike = [unit for (_, known), unit in units.items() if known == name]
    if len(alike) > 1:
        return units.get((function.__module__, name))
    return alike[0] if alike else None
