"""Put off the collection of reference cycles while a graph is being made and worked on."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collecting_later"]


@contextmanager
def collecting_later(when: bool = True) -> Iterator[None]:
    """Let nothing look for cycles meanwhile.

    Thousands of small objects come into being here, and all of them are needed to the end. They
    make Python look through everything that torch and the model consist of, which takes longer
    than the rest of the work. Tensors are freed as ever, by counting references.

    Args:
        when: Whether to do so; not where code of the user's runs, which may leave cycles.
    """
    enabled = gc.isenabled()
    if when:
        gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
