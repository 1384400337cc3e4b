"""Running a module with other tensors in the place of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

from torch import Tensor, nn

__all__ = ["call_with"]


class _Running:
    """How often a module runs at the moment, and the parameters that it gets back after the last.

    Several threads may run it. What the first puts in their place is no parameter, and would stay
    if the second took it for one.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.calls, self.parameters = 0, parameters


_running: dict[int, _Running] = {}
_changing = Lock()


def call_with(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Do what `functional_call` does, for a module without others in it, in a third of the time.

    Args:
        module: The module.
        tensors: What stands in for its parameters, by name.
        args: What it is called with.
        kwargs: What it is called with by name.
    """
    own: dict[str, Any] = module._parameters
    with _changing:
        running = _running.get(id(module))
        if running is None:
            running = _running[id(module)] = _Running({name: own[name] for name in tensors})
        running.calls += 1
        own.update(tensors)
    try:
        return module(*args, **kwargs)
    finally:
        with _changing:
            running.calls -= 1
            if not running.calls:
                own.update(running.parameters)
                del _running[id(module)]
