"""Which call of which module is being made: how a size in a forward is addressed.

The ATen operators say what happened; these say where the Python of the model asked for it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from prune_speedup.torch.record.any_width import is_for_any_width

__all__ = [
    "ARITHMETIC",
    "INDEXING",
    "LEAVING",
    "SHOWING",
    "SIZED",
    "Bound",
    "Frame",
    "Number",
    "Site",
    "SiteCounter",
    "numbers",
    "short_name",
    "with_numbers",
]

ARITHMETIC = frozenset(
    {"mul", "__mul__", "__rmul__", "div", "__truediv__", "true_divide", "__rtruediv__", "pow"}
    | {"mul_", "div_", "add", "sub", "__rsub__", "__rpow__"}
)
"""Functions of torch that may be given a number made of sizes, such as a scale."""

SIZED = ARITHMETIC | frozenset(
    {"view", "reshape", "expand", "split", "split_with_sizes", "narrow", "repeat", "unflatten"}
    | {"new_zeros", "new_ones", "new_full", "new_empty", "zeros", "ones", "full", "empty"}
    | {"layer_norm", "group_norm", "rms_norm", "conv1d", "conv2d", "conv3d", "__getitem__"}
    | {"__setitem__"}
    | {"broadcast_to", "chunk", "tensor_split", "as_strided", "as_strided_", "roll", "slice"}
)
"""Functions of torch that are told sizes, or numbers that may be made of sizes."""

LEAVING = frozenset(
    {"numpy", "tolist", "data_ptr", "__array__", "__dlpack__", "untyped_storage", "storage"}
)
"""Functions of torch that hand a tensor's numbers to something that torch does not see."""

SHOWING = "__repr__"
"""The function of torch that writes a tensor's numbers down, where no dispatcher sees it look."""

_ASKING = frozenset(
    {"shape", "size", "numel", "nelement", "nbytes", "stride", "__len__", "unbind", "is_same_size"}
)
"""Functions and attributes of tensors that tell what sizes they have, if by what they make."""

INDEXING = frozenset({"__getitem__", "__setitem__"})
"""Functions of torch that are told several slices at once."""

Number = int | float

# A size that stays open during an export is a number like any other.
_NUMBERS: tuple[Any, ...] = (int, float, torch.SymInt, torch.SymFloat)


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


Bound = tuple[int, int] | None
"""Of a number in an index as `x[index]` takes it: the axis of its slice, and whether it is where
that begins (0), where it ends (1) or its step (2). A number that is no slice's has none."""

Rewrite = Callable[[Site, tuple[Number, ...]], Mapping[int, Number]]


class Frame:
    """One run of one module."""

    __slots__ = ("counts", "module")

    def __init__(self, module: str) -> None:
        """Begin to count."""
        self.module = module
        self.counts: dict[str, int] = {}


class SiteCounter(TorchFunctionMode):
    """Know at any moment of a forward which call is running, and what it was given.

    Attributes:
        asked: Whether the model's Python has asked any tensor for its size, or may have.
        knows_width: Whether it may have learnt how wide anything is, or have called what depends
            on that.
        calling: Whether one of these calls is being made.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        rewrite: Rewrite | None = None,
        leaves: Callable[[torch.Tensor, str], None] | None = None,
        shows: Callable[[torch.Tensor], None] | None = None,
    ) -> None:
        """Count in these frames, the innermost last.

        Args:
            frames: The modules that are running.
            rewrite: Told the site and the numbers of a call before it is made; it returns the
                numbers that are to be other, by position.
            leaves: Told of a tensor that leaves torch, and by which function.
            shows: Told of a tensor that is about to be printed.
        """
        super().__init__()
        self._leaves = leaves
        self._shows = shows
        self._rewrite = rewrite
        self.site: Site | None = None
        self.given: tuple[Number, ...] = ()
        self.bounds: tuple[Bound, ...] = ()
        self._frames = frames
        self.asked = self.knows_width = self.calling = False

    def note_width(self) -> None:
        """Be told that the model's Python may know a width."""
        self.knows_width = True

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count the call, and remember it in case it fails."""
        name = short_name(func)
        self.knows_width = self.knows_width or not is_for_any_width(func, types)
        if name in LEAVING and self._leaves is not None and isinstance(args[0], torch.Tensor):
            self._leaves(args[0], name)
        if name == SHOWING and self._shows is not None:
            self._shows(args[0])
        if name not in SIZED:
            attribute = getattr(func.__self__, "__name__", "") if name == "__get__" else name
            self.asked = self.asked or attribute in _ASKING
            return self._call(func, args, kwargs or {})
        innermost = self._frames[-1]
        self.site = Site(innermost.module, name, innermost.counts.get(name, 0))
        kwargs = kwargs or {}
        # What is written to places is a number like any other, and says no size.
        told = args[:2] if name == "__setitem__" else args
        self.given = tuple(numbers((told, list(kwargs.values()))))
        self.bounds = _bounds(*told) if name in INDEXING else ()
        if name == "tensor_split" and isinstance((*args, *kwargs.values())[1], _NUMBERS):
            self.bounds = (None,) * len(self.given)  # so many pieces, and bounds of none
        if self._rewrite is not None and (changes := self._rewrite(self.site, self.given)):
            args, kwargs = with_numbers(args, kwargs, lambda at, given: changes.get(at, given))
        for frame in self._frames:
            frame.counts[name] = frame.counts.get(name, 0) + 1
        result = self._call(func, args, kwargs)
        self.site = None
        return result

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calling = True
        try:
            return func(*args, **kwargs)
        except Exception:
            self.knows_width = True  # it need not fail with another one
            raise
        finally:
            self.calling = False


def with_numbers(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], change: Callable[[int, Number], Number]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with their numbers changed; each is told by its position and its value."""
    position = -1

    def walk(arg: Any) -> Any:
        nonlocal position
        if isinstance(arg, slice):
            return slice(walk(arg.start), walk(arg.stop), walk(arg.step))
        # No union of types: this runs in forwards, and torch.compile reads unions since 2.9 only.
        if isinstance(arg, (list, tuple, torch.Size)):
            items = [walk(item) for item in arg]
            return items if isinstance(arg, list) else tuple(items)
        if isinstance(arg, _NUMBERS) and not isinstance(arg, bool):
            position += 1
            return change(position, arg)
        return arg

    positional = tuple(walk(arg) for arg in args)
    return positional, {name: walk(arg) for name, arg in kwargs.items()}


def short_name(function: Any) -> str:
    """`reshape` for `torch.Tensor.reshape`, `torch.reshape` and `torch.ops.aten.reshape`."""
    return str(getattr(function, "__name__", function)).partition(".")[0]


def numbers(tree: Any) -> list[Number]:
    """The numbers among arguments, at any depth, in order."""
    if isinstance(tree, slice):
        tree = (tree.start, tree.stop, tree.step)
    if isinstance(tree, list | tuple | torch.Size):
        return [number for item in tree for number in numbers(item)]
    return [tree] if isinstance(tree, _NUMBERS) and not isinstance(tree, bool) else []


def _bounds(tensor: torch.Tensor, index: Any) -> tuple[Bound, ...]:
    """What each number in an index says, with the axes counted as torch does when it slices."""
    items = index if isinstance(index, tuple) else (index,)
    adds = [item is None or isinstance(item, bool) for item in items]
    takes = sum(not new and item is not Ellipsis for item, new in zip(items, adds, strict=True))
    bounds: list[Bound] = []
    axis = 0
    for item, new in zip(items, adds, strict=True):
        if isinstance(item, slice):
            told = enumerate((item.start, item.stop, item.step))
            bounds += [(axis, which) for which, number in told if isinstance(number, _NUMBERS)]
        else:
            bounds += [None] * len(numbers(item))
        if item is Ellipsis:
            axis += tensor.ndim - takes
        elif new or not isinstance(item, _NUMBERS):
            axis += 1
    return tuple(bounds)
