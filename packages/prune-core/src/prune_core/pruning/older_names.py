"""What the predecessor called things; each calls the method that has the name of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune_core.compat import NoEffect, Older, order
from prune_core.masking import Masks
from prune_core.pruning.wrapped import WrappedModel

__all__ = ["ANY_PRUNER", "OlderNames"]

ANY_PRUNER = Older(orders=[order("optimizer")], ignored={"optimizer": NoEffect()})
"""The first releases gave every pruner the optimizer, which goes on working without being told."""


class OlderNames(WrappedModel):
    """The same under the names of older releases."""

    def _wrap_model(self) -> None:
        """`wrap()`."""
        self.wrap()

    def _unwrap_model(self) -> None:
        """`unwrap()`."""
        self.unwrap()

    def wrap_model(self) -> None:
        """`wrap()`."""
        self.wrap()

    def unwrap_model(self) -> None:
        """`unwrap()`."""
        self.unwrap()

    def get_masks(self) -> Masks:
        """Return `masks`."""
        return self.masks

    def get_pruned_weights(self, dim: int = 0) -> None:
        """`show_pruned_weights()`.

        Args:
            dim: As there.
        """
        self.show_pruned_weights(dim)

    def load_model_state_dict(self, model_state: Mapping[str, Any]) -> None:
        """Load a state dict of the model without wrappers; masks stay in force.

        Args:
            model_state: What `state_dict()` of the model without wrappers returned.
        """
        with self.plain() as model:
            model.load_state_dict(model_state)
