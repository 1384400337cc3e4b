"""What an engine is: the interface between prune and the models of a framework."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Protocol

__all__ = ["Engine"]


class Engine(Protocol):
    """Analyses models of a framework, prunes them in one line and makes them smaller.

    A plugin registers its engine with `prune_register_engines`, and `prune_core.get_engine` returns
    it. prune-speedup brings that for torch, prune-tf that for Keras. With a module `testing` that
    has `CHECKS` and `subject`, as prune-tf has one, `check_pruner` checks pruners of the framework.
    """

    def units(self, model: Any, example_inputs: Any) -> Any:
        """Find which slices of which tensors can only be removed together.

        Args:
            model: The model.
            example_inputs: An input of it.
        """

    def prune(self, model: Any, algorithm: str, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """Mask a model in one line; return it and its masks.

        Args:
            model: The model.
            algorithm: The name of a registered pruner.
            **options: What `prune_core.prune` takes.
        """

    def shrink(self, model: Any, *inputs: Any, **options: Any) -> Any:
        """Remove what is masked, compare with the masked model, and return a report.

        Args:
            model: The masked model, without wrappers.
            inputs: An input of the model.
            **options: What `prune_core.shrink` takes.
        """

    def save_pruned(self, model: Any, path: str | PathLike[str]) -> None:
        """Write a small model to a file that holds no code.

        Args:
            model: The small model.
            path: Where to write it.
        """

    def load_pruned(self, model: Any, path: str | PathLike[str]) -> Any:
        """Make a dense model the small one that a file holds.

        Args:
            model: A dense model.
            path: The file of a small one.
        """
