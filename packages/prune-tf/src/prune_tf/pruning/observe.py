"""Seeing what layers put out, or take in, while a model runs eagerly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["observed"]


@contextmanager
def observed(
    layers: Mapping[str, Any], look: Callable[[str, Any, Any], None], *, inputs: bool = False
) -> Iterator[None]:
    """Call `look(name, layer, output)` whenever one of the layers has run.

    With `inputs`, it is called with what the layer was given instead.

    Keras has no forward hooks. Standing in for `call` on the instance works for functional,
    sequential and subclassed models alike, where a model of inner outputs would not.
    """
    try:
        for name, layer in layers.items():
            object.__setattr__(layer, "call", _watched(name, layer, look, inputs))
        yield
    finally:
        for layer in layers.values():
            # The class's own method is seen again.
            layer.__dict__.pop("call", None)


def _watched(
    name: str, layer: Any, look: Callable[[str, Any, Any], None], inputs: bool
) -> Callable[..., Any]:
    call = layer.call

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        given = args[0] if args else next(iter(kwargs.values()), None)
        look(name, layer, given if inputs else output)
        return output

    return watched
