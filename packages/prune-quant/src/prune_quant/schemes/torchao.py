"""torchao, imported when it is needed, and in silence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from prune_core.errors import MissingDependencyError

__all__ = ["quiet", "torchao", "version"]

# torchao names every kernel in its wheel that was built for another machine, and torch how torchao
# registers a class. Neither says anything about the user's model.
_CHATTY = ("torchao", "torch.utils._pytree")


def torchao(module: str = "") -> Any:
    """Return a module of torchao, such as `torchao("quantization.qat")`.

    Raises:
        MissingDependencyError: When torchao is not installed, or not for this torch.
    """
    name = f"torchao.{module}".rstrip(".")
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"{name} cannot be imported ({error}). prune-quant needs torchao 0.18: "
            "`pip install 'torchao>=0.18,<0.19'`."
        ) from error


def version() -> str:
    """Return the version of torchao, for messages."""
    return str(torchao().__version__)


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep loggers, torchao's unless named, from saying anything but errors for a while."""
    loggers = [logging.getLogger(name) for name in names or _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
