"""Recurrent layers, whose hidden units lie in many tensors, once for each gate.

Hidden unit `j` of an LSTM is row `j`, `H + j`, `2H + j` and `3H + j` of the input and the hidden
weights and of both biases; of each layer and direction of the module, since all start from states
of one width. With these rows at zero its state is zero at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.rnn import RNNCellBase

__all__ = ["gates", "hidden_names", "is_recurrent", "rows", "spread", "unspread"]

Recurrent = nn.RNNBase | RNNCellBase
_KINDS = nn.RNNBase, RNNCellBase


def is_recurrent(module: nn.Module) -> TypeGuard[Recurrent]:
    """Whether a module is one of torch's recurrent layers or cells."""
    return isinstance(module, _KINDS)


def hidden_names(module: Recurrent) -> tuple[str, ...]:
    """Return the names of the tensors that hidden units are rows of, the hidden weight first."""
    held = [name for name, tensor in module._parameters.items() if tensor is not None]
    names = [name for name in held if not name.startswith("weight_hr")]
    return tuple(sorted(names, key=lambda name: not name.startswith("weight_hh")))


def gates(module: Recurrent) -> int:
    """Return how many rows a hidden unit has in each tensor."""
    return module.get_parameter(hidden_names(module)[0]).shape[0] // int(module.hidden_size)


def rows(module: Recurrent, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return a matrix with a row for each hidden unit, of its weights in all of these tensors."""
    hidden, parts = int(module.hidden_size), gates(module)
    return torch.cat(
        [tensor.view(parts, hidden, -1).transpose(0, 1).flatten(1) for tensor in tensors.values()],
        dim=1,
    )


def spread(module: Recurrent, keep: Tensor) -> dict[str, Tensor]:
    """Return the masks of all tensors for a mask of hidden units."""
    tall = keep.repeat(gates(module))
    masks = {}
    for name in hidden_names(module):
        shape = module.get_parameter(name).shape
        masks[name] = tall.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
    return masks


def unspread(module: Recurrent, left: Tensor) -> Tensor:
    """Return which hidden units have anything left, given which rows have."""
    return left.view(gates(module), -1).amax(0)
