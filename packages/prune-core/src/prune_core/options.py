"""Arguments that a pruner does not take, refused in its own name.

A pruner hands its arguments on from class to class, so Python would complain in the name of some
base class that the user has never heard of. Here the call is checked before it is made.
"""

from __future__ import annotations

import re
from abc import ABCMeta
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, Unpack, get_origin

from prune_core.config import PRUNING, keys_for
from prune_core.errors import ConfigError, OptionError, did_you_mean, shown

__all__ = ["ChecksOptions", "check_flags", "check_options", "taken_by"]


class ChecksOptions(ABCMeta):
    """The metaclass of classes whose arguments are checked by name before `__init__` sees them."""

    @property
    def __signature__(cls) -> Signature:
        whole = signature(cls.__init__)  # type: ignore[misc]
        return whole.replace(parameters=[*whole.parameters.values()][1:])

    if not TYPE_CHECKING:  # where a call would be taken for untyped

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            """Make an instance, of arguments that it takes."""
            if not hasattr(cls.__init__, "older_calls"):  # such a one translates first, then checks
                check_options(cls, cls.__signature__, args, kwargs)
            try:
                return super().__call__(*args, **kwargs)
            except TypeError as error:
                # A class that hands on what it does not know finds out when it is too late.
                name = _not_taken(cls, error)
                if name is None:
                    raise
                raise OptionError(_unknown(cls, name)) from None


def check_options(
    cls: type,
    taken: Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    older: Iterable[str] = (),
) -> None:
    """Refuse arguments that do not fit a signature.

    Args:
        cls: The class that is called.
        taken: What it takes.
        args: The arguments by position.
        kwargs: The arguments by name.
        older: Further names that somebody may have meant.

    Raises:
        OptionError: When they do not fit.
    """
    try:
        bound = taken.bind(*args, **kwargs)
    except TypeError as error:
        raise OptionError(_complaint(cls, taken, args, kwargs, str(error), older)) from None
    flags = (name for name, p in taken.parameters.items() if p.annotation in (bool, "bool"))
    check_flags(**{name: bound.arguments[name] for name in flags if name in bound.arguments})
    if any(map(_hands_on, taken.parameters.values())):
        known = taken_by(cls)
        for name in kwargs:
            if name not in known:
                raise OptionError(_unknown(cls, name, older))


def check_flags(**flags: Any) -> None:
    """Refuse what is neither `True` nor `False`, because Python takes any text for true.

    Args:
        flags: The arguments by name.

    Raises:
        ConfigError: When one is something else.

    >>> check_flags(uniform="no")
    Traceback (most recent call last):
    prune_core.errors.ConfigError: uniform is 'no'; it must be True or False.
    """
    for name, value in flags.items():
        if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # numpy's
            raise ConfigError(f"{name} is {shown(value)}; it must be True or False.")


def _hands_on(parameter: Parameter) -> bool:
    """Whether what it collects is for the base class: `**options: Unpack[Options]`."""
    kind = parameter.annotation  # or its text, in a module that postpones annotations
    unpacks = "Unpack[" in kind if isinstance(kind, str) else get_origin(kind) is Unpack
    return parameter.kind is Parameter.VAR_KEYWORD and unpacks


def _complaint(
    cls: type,
    taken: Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    why: str,
    older: Iterable[str],
) -> str:
    parameters = taken.parameters
    named = [
        name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    takes = f"It takes {', '.join(named)}."
    for name in kwargs:
        if name not in named:
            return _unknown(cls, name, older)
    by_position = [
        n for n, p in parameters.items()
        if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    for name in named[len(args) :] if len(args) <= len(by_position) else ():
        if name not in kwargs and parameters[name].default is Parameter.empty:
            return f"{cls.__name__} needs {name!r}. {takes}"
    if len(args) > len(by_position):
        return (
            f"{cls.__name__} takes {len(by_position)} arguments by position "
            f"({', '.join(by_position)}), and got {len(args)}. {takes}"
        )
    return f"{cls.__name__}: {why}. {takes}"


def _unknown(cls: type, name: str, older: Iterable[str] = ()) -> str:
    taken = taken_by(cls)
    purpose = getattr(cls, "purpose", PRUNING)
    key = name in keys_for(getattr(cls, "config_keys", ()), purpose)
    hint = " It is a key of config_list." if key else did_you_mean(name, [*taken, *older])
    return f"{cls.__name__} takes no {name!r}.{hint} It takes {', '.join(taken)}."


def taken_by(cls: type) -> list[str]:
    """Return what a class takes, also what it hands on to the classes that it is made of.

    Args:
        cls: The class.
    """
    taken: dict[str, None] = {}
    for base in cls.__mro__:
        if (own := vars(base).get("__init__")) is None:
            continue
        parameters = [*signature(own).parameters.values()][1:]
        taken |= {
            p.name: None for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(taken)


def _not_taken(cls: ChecksOptions, error: TypeError) -> str | None:
    """Return the argument that a base class did not take, if that is what the error says."""
    found = re.fullmatch(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    bases = {base.__name__ for base in cls.__mro__}
    return found[2] if found is not None and found[1] in bases else None
