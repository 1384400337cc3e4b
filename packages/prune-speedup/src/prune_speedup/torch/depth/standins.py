"""What stands in the place of a block or a branch that was taken out.

Both classes have neither parameters nor buffers. What a module is given and what it returns is
written down in plain values, so that a stand-in is copied, pickled, exported and loaded like any
other module:

    return self.attention(x, mask=mask), None      returns ["tuple", ["hidden"], ["plain", None]]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Form", "Skip", "StandIn", "Zero", "tensor_of"]

Form = list[Any]
"""What a module returns: `["hidden"]` for the tensor that it computes, `["input", position, name]`
for one that it was given, `["plain", value]`, or `["tuple", …]` and `["list", …]` of these."""

_PLAIN = (int, float, str, bool, type(None))


def tensor_of(position: int, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return an argument that was given by position or by name."""
    return kwargs[name] if name in kwargs else args[position] if position < len(args) else None


class StandIn(nn.Module):
    """A module without parameters that returns what another one did, in the same form.

    Args:
        position: Where among the positional arguments the hidden states are,
        name: and the name that they have in the signature.
        form: What is returned.
        instead: The module that was here. Its plain attributes are kept, for a model may read them
            from outside.
    """

    def __init__(
        self, position: int, name: str, form: Form, instead: nn.Module | None = None
    ) -> None:
        super().__init__()
        for key, value in () if instead is None else vars(instead).items():
            plain = (value,) if not isinstance(value, tuple) else value
            if key not in vars(self) and all(isinstance(each, _PLAIN) for each in plain):
                setattr(self, key, value)
        if instead is not None:
            self.training = instead.training
        self.prune_position, self.prune_name, self.prune_form = position, name, form

    def hidden(self, x: Tensor) -> Tensor:
        """Return what stands for what was computed."""
        raise NotImplementedError

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what stands for what was computed, in the form in which it was returned."""
        hidden = self.hidden(tensor_of(self.prune_position, self.prune_name, args, kwargs))

        def made(form: Form) -> Any:
            kind, *rest = form
            if kind == "hidden":
                return hidden
            if kind == "input":
                return tensor_of(rest[0], rest[1], args, kwargs)
            if kind == "plain":
                return rest[0]
            items = [made(each) for each in rest]
            return items if kind == "list" else tuple(items)

        return made(self.prune_form)


class Skip(StandIn):
    """Stands for a block whose output is replaced by its input."""

    def hidden(self, x: Tensor) -> Tensor:
        """Return the input."""
        return x

    def extra_repr(self) -> str:
        """Say what it does."""
        return "returns its input"


class Zero(StandIn):
    """Stands for the last module of a branch that adds nothing any more.

    Args:
        position: See `StandIn`.
        name: See `StandIn`.
        form: See `StandIn`.
        axes: The length of each axis: 0 is that of the input, a positive number is the length
            itself, and of -n it is the n-th part of the input's, rounded up.
        instead: See `StandIn`.
    """

    def __init__(
        self,
        position: int,
        name: str,
        form: Form,
        axes: Sequence[int] = (),
        instead: nn.Module | None = None,
    ) -> None:
        super().__init__(position, name, form, instead)
        self.prune_axes = [*axes]

    def hidden(self, x: Tensor) -> Tensor:
        """Return zeros."""
        if not any(self.prune_axes) and len(self.prune_axes) == x.ndim and x.is_floating_point():
            return torch.zeros_like(x)
        shape = [
            x.shape[at] if axis == 0 else axis if axis > 0 else -(x.shape[at] // axis)
            for at, axis in enumerate(self.prune_axes)
        ]
        return x.new_zeros(
            shape, dtype=None if x.is_floating_point() else torch.get_default_dtype()
        )

    def extra_repr(self) -> str:
        """Say what it does."""
        return "returns zeros"
