"""How a user's own function is called: with what it requires, and nothing that it merely allows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from inspect import Parameter
from typing import Any

from prune_core.errors import ConfigError, shown

__all__ = ["UserFunction", "check_takes_model", "trainer_function"]

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class UserFunction:
    """Calls a user's function with as many of the offered values as it requires.

    The first value, the model, is always handed over. Every other required parameter gets the
    value that is offered under its name; those with names of their own get what is left, in order.
    Optional parameters keep their defaults: in `def train(model, epochs=3)`, the three is the
    user's. A function that hides its parameters behind `*args` gets everything offered.

    Args:
        function: The function, or anything else that can be called.
        name: The argument that it was given as, for messages.
        offers: The names of the values that a call offers, in order; the model first.
        more: Further names that a call offers, for functions that require them.

    Attributes:
        takes: The names of the values that the function gets.

    Raises:
        ConfigError: When it cannot be called, or requires something that nobody offers.

    Example:
        >>> def train(model, criterion, optimizer, epochs=3):
        ...     return model, criterion, optimizer, epochs
        >>> call = UserFunction(train, "trainer", ["model", "optimizer", "criterion"], ["epoch"])
        >>> call("m", "o", "c", 7)
        ('m', 'c', 'o', 3)
        >>> call.takes
        ('model', 'criterion', 'optimizer')
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        offers: Sequence[str] = ("model",),
        more: Sequence[str] = (),
    ) -> None:
        if not callable(function):
            raise ConfigError(
                f"{name} is {shown(function)}; it must be a function that takes {_listed(offers)}."
            )
        self.function, self._offers = function, (*offers, *more)
        self._by_position: list[str] = [offers[0]]
        self._by_name: dict[str, str] = {}
        parameters = _parameters(function)
        if parameters is not None:
            self._fill(parameters, name, offers)
        self.takes = (*self._by_position, *self._by_name.values())

    def _fill(self, parameters: Sequence[Parameter], name: str, offers: Sequence[str]) -> None:
        """Choose an offer for each required parameter."""
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        if not positional:
            if not any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
                raise ConfigError(
                    f"{_called(self.function)}(), given as {name}, must take the model."
                )
            self._by_position = list(offers)
        by_name = [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
        required = [p for p in (*positional[1:], *by_name) if p.default is Parameter.empty]
        left = [offer for offer in self._offers if offer not in self._by_position]
        named = {p.name for p in required} & set(left)
        unnamed = iter([offer for offer in left if offer not in named])
        for parameter in required:
            offer = parameter.name if parameter.name in named else next(unnamed, None)
            if offer is None:
                called = _called(self.function)
                raise ConfigError(
                    f"{called}(), given as {name}, requires {parameter.name!r}; it is called with "
                    f"{_listed(self._offers)}. Give the parameter a default, or bind it: "
                    f"functools.partial({called}, {parameter.name}=...)."
                )
            if parameter in by_name:
                self._by_name[parameter.name] = offer
            else:
                self._by_position.append(offer)

    def __call__(self, *values: Any) -> Any:
        """Call the function; the values are those of `offers` and `more`, in order."""
        offered = dict(zip(self._offers, values, strict=True))
        return self.function(
            *(offered[offer] for offer in self._by_position),
            **{name: offered[offer] for name, offer in self._by_name.items()},
        )


def check_takes_model(
    name: str, function: object, what: str = "the model", *, alone: bool = True
) -> None:
    """Refuse what is not a function of the model, before anything has been done.

    Args:
        name: The argument that it was given as.
        function: The function; None was not given.
        what: What a message says that it takes.
        alone: Whether it will be called with the model and nothing else.

    Raises:
        ConfigError: When it cannot be called, or requires more than the model.
    """
    if function is None:
        return
    if not callable(function):
        raise ConfigError(f"{name} is {shown(function)}; it must be a function that takes {what}.")
    if alone:
        UserFunction(function, name)


def trainer_function(function: Callable[..., Any], name: str = "trainer") -> UserFunction:
    """Understand a function that trains a model for an epoch, in the form of any release.

    Call it with model, optimizer, criterion, the number of the epoch, and what some releases call
    `callback`: a function without arguments, before each step of the optimizer.
    """
    return UserFunction(function, name, ("model", "optimizer", "criterion"), ("epoch", "callback"))


def _parameters(function: Callable[..., Any]) -> list[Parameter] | None:
    """Return the parameters of a function, or None for a builtin that does not tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def _called(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else f"the {names[0]}"
