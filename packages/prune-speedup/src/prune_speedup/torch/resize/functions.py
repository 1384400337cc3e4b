"""The functions that a class is made of, found by the code that is running."""

from collections.abc import Iterator
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.torch.record.source_places import Place
from prune_speedup.torch.resize.corrections import Path, Where
from prune_speedup.torch.resize.rewrite import inside, name_of, text_of, whole_span

__all__ = ["functions_in", "functions_of", "path_of", "with_function"]


def path_of(module: nn.Module, place: Place) -> Path:
    """How a place is reached from the module that was running.

    Raises:
        SpeedupError: It is not reached by way of a method of the module alone.
    """
    steps, own = list(place), _codes_of(type(module))
    entry = next((at for at, step in enumerate(steps) if id(step.code) in own), None)
    if entry is None:
        raise SpeedupError(f"the call is made by no method of {type(module).__name__}")
    path: list[Where] = []
    unit = own[id(steps[entry].code)].__code__
    for at in range(entry, -1, -1):
        code, span, namespace = steps[at]
        if at != entry and code is not unit and inside(unit, code):
            path.pop()  # a comprehension, or a function within the function
        elif at != entry:
            unit = code
        if _is_comprehension(unit):
            raise SpeedupError(f"{code.co_qualname} runs outside the function that it is part of")
        if span is None:
            raise SpeedupError("Python was told not to keep where in a line its calls stand")
        span, first = whole_span(code, span), unit.co_firstlineno
        relative = (span[0] - first, span[1] - first, span[2], span[3])
        path.append(Where(namespace, name_of(unit), relative, text_of(code, span)))
    return tuple(path)


def functions_of(kind: type) -> Iterator[tuple[str, FunctionType]]:
    """The functions that a class's attributes are, or are made of, by the attribute's name."""
    seen: set[str] = set()
    for base in kind.__mro__:
        for name, value in vars(base).items():
            if name not in seen:
                seen.add(name)
                for function in functions_in(value):
                    yield name, function


def functions_in(value: Any, depth: int = 4) -> Iterator[FunctionType]:
    """A function, and those that it wraps."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property) and value.fget is not None:
        value = value.fget
    if isinstance(value, FunctionType) and depth:
        yield value
        for cell in value.__closure__ or ():
            yield from functions_in(_content(cell), depth - 1)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing has been put into it yet
        return None


def _codes_of(kind: type) -> dict[int, FunctionType]:
    """The functions of a class by the identity of their code and of all code within it."""
    codes: dict[int, FunctionType] = {}

    def add(code: CodeType, function: FunctionType) -> None:
        codes.setdefault(id(code), function)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                add(constant, function)

    for _, function in functions_of(kind):
        add(function.__code__, function)
    return codes


def _is_comprehension(code: CodeType) -> bool:
    return code.co_name.startswith("<") and code.co_name != "<lambda>"


def with_function(value: Any, old: FunctionType, new: FunctionType) -> Any:
    """What was made of a function, such as what a decorator returned, made of another."""
    if value is old:
        return new
    if isinstance(value, staticmethod | classmethod):
        return type(value)(with_function(value.__func__, old, new))
    if isinstance(value, property):
        return property(with_function(value.fget, old, new), value.fset, value.fdel)
    if not isinstance(value, FunctionType) or old not in functions_in(value):
        return value
    cells = tuple(
        CellType(with_function(_content(cell), old, new))
        if old in functions_in(_content(cell))
        else cell
        for cell in value.__closure__ or ()
    )
    made = FunctionType(
        value.__code__, value.__globals__, value.__name__, value.__defaults__, cells
    )
    made.__kwdefaults__ = value.__kwdefaults__
    made.__dict__.update(value.__dict__)
    made.__doc__, made.__module__ = value.__doc__, value.__module__
    made.__qualname__, made.__annotations__ = value.__qualname__, value.__annotations__
    if "__wrapped__" in made.__dict__:
        made.__dict__["__wrapped__"] = with_function(made.__dict__["__wrapped__"], old, new)
    return made
