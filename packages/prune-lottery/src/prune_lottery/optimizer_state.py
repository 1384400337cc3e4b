"""Save and restore the state of an optimizer, bit for bit.

`Optimizer.load_state_dict` keeps the tensors it is given and then trains them in place, so that
the second rewind would find a changed memory; and it casts them to the type of the parameters.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from prune_core.errors import PruneError

__all__ = ["put_optimizer", "take_optimizer"]


def take_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Copy hyperparameters and state."""
    return copy.deepcopy(optimizer.state_dict())


def put_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Put back what `take_optimizer` took.

    Raises:
        PruneError: When the optimizer trains other parameters now.
    """
    try:
        optimizer.load_state_dict(copy.deepcopy(state))
    except ValueError as error:
        raise PruneError(
            f"The optimizer cannot be put back to what it was: {error}. Add parameter groups "
            "before the lottery is made, or let train() make its own optimizer."
        ) from error
    _undo_casts(optimizer, state)


def _undo_casts(optimizer: Optimizer, state: dict[str, Any]) -> None:
    for group, stored_group in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for parameter, number in zip(group["params"], stored_group["params"], strict=True):
            now = optimizer.state.get(parameter, {})
            for key, stored in state["state"].get(number, {}).items():
                loaded = now.get(key)
                if isinstance(stored, Tensor) and isinstance(loaded, Tensor):
                    now[key] = stored.to(loaded.device, copy=True)
