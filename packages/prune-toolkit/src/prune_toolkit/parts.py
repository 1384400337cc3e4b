"""From the name of a part to the part: what a pruner is put together from, chosen by names."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, isclass, signature
from typing import TYPE_CHECKING, Any

from prune_core.errors import ConfigError, did_you_mean
from prune_core.registry import get_part

if TYPE_CHECKING:
    from prune_core.pruning.pruner import Pruner

__all__ = ["accepted", "make_part", "part_class"]

OWNER = ("pruner", "compressor")
"""What parts call the pruner that they belong to."""


def part_class(kind: str, part: Any) -> Any:
    """Return the class behind a registered name, or the class itself."""
    if isinstance(part, str):
        return get_part(kind, part, framework="torch")
    if not callable(part):
        raise ConfigError(
            f"The {kind} is {part!r}; it must be the name of a registered one, or a class."
        )
    return part


def accepted(made_by: Any) -> dict[str, Parameter]:
    """Return what a part can be told, but for the pruner."""
    parameters = signature(made_by).parameters
    variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return {n: p for n, p in parameters.items() if n not in OWNER and p.kind not in variadic}


def make_part(kind: str, part: Any, pruner: Pruner, given: Mapping[str, Any]) -> Any:
    """Make a part for a pruner.

    Args:
        kind: `"collector"`, `"metric"`, `"allocator"` or `"reconstructor"`.
        part: The name of a registered part, or a class.
        pruner: The pruner; a part that wants it gets it.
        given: What is known; of it, the part gets what it understands.

    Raises:
        ConfigError: The part needs something that is not there.
        UnknownNameError: No plugin registers the name.

    Example:
        ```python
        make_part("allocator", "row", pruner, {"continuous_mask": False})
        ```
    """
    made_by = part_class(kind, part)
    known = accepted(made_by)
    arguments = {name: given[name] for name in known if name in given}
    for name, parameter in known.items():
        if name not in arguments and parameter.default is Parameter.empty:
            raise ConfigError(f"The {kind} {_shown(part)} needs {name}=, which is not given.")
    owner = next((name for name in OWNER if name in signature(made_by).parameters), None)
    return made_by(**{owner: pruner} if owner else {}, **arguments)


def check_used(kinds: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse an argument that none of some parts understands.

    Args:
        kinds: `{kind: name or class}`.
        given: The arguments.
    """
    known = {name for kind, part in kinds.items() for name in accepted(part_class(kind, part))}
    for name in given:
        if name not in known:
            parts = ", ".join(f"{kind} {_shown(part)}" for kind, part in kinds.items())
            raise ConfigError(
                f"{name!r} is an argument of none of the parts: {parts}.{did_you_mean(name, known)}"
                f" They take {', '.join(sorted(known)) or 'none'}."
            )


def _shown(part: Any) -> str:
    return part.__name__ if isclass(part) else repr(part)
