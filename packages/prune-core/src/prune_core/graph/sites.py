"""Which call of which module is being made: how a size in a forward is addressed.

The ATen operators say what happened; these say where the Python of the model asked for it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["SIZED", "Frame", "Site", "SiteCounter", "integers", "short_name"]

SIZED = frozenset(
    {"view", "reshape", "expand", "split", "split_with_sizes", "narrow", "repeat", "unflatten"}
    | {"new_zeros", "new_ones", "new_full", "new_empty", "zeros", "ones", "full", "empty"}
    | {"layer_norm", "group_norm", "rms_norm", "conv1d", "conv2d", "conv3d", "__getitem__"}
    | {"broadcast_to", "chunk", "tensor_split", "multi_head_attention_forward", "as_strided"}
)
"""Functions of torch that are told sizes."""


class Site(NamedTuple):
    """One call in a forward.

    Attributes:
        module: The name of the module that was running.
        function: The function's short name.
        occurrence: Which of the calls of that function it is since the module began, its
            children's calls included.
    """

    module: str
    function: str
    occurrence: int


class Frame:
    """One run of one module."""

    __slots__ = ("counts", "module")

    def __init__(self, module: str) -> None:
        """Begin to count."""
        self.module = module
        self.counts: Counter[str] = Counter()


class SiteCounter(TorchFunctionMode):
    """Know at any moment of a forward which call is running, and what it was given."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        """Count in these frames, the innermost last."""
        super().__init__()
        self.site: Site | None = None
        self.given: tuple[int, ...] = ()
        self._frames = frames

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count the call, and remember it in case it fails."""
        name = short_name(func)
        if name not in SIZED:
            return func(*args, **(kwargs or {}))
        innermost = self._frames[-1]
        self.site = Site(innermost.module, name, innermost.counts[name])
        self.given = tuple(integers(args))
        for frame in self._frames:
            frame.counts[name] += 1
        result = func(*args, **(kwargs or {}))
        self.site = None
        return result


def short_name(function: Any) -> str:
    """`reshape` for `torch.Tensor.reshape` and `torch.reshape` alike."""
    return str(getattr(function, "__name__", function))


def integers(tree: Any) -> list[int]:
    """The integers among arguments, at any depth, in order."""
    if isinstance(tree, slice):
        tree = (tree.start, tree.stop, tree.step)
    if isinstance(tree, list | tuple | torch.Size):
        return [number for item in tree for number in integers(item)]
    return [tree] if isinstance(tree, int) and not isinstance(tree, bool) else []
