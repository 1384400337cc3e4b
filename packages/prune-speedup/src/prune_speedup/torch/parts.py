"""Cut a large tensor so that the way back takes no second copy of it.

Until a small model is proved, what its tensors were may be wanted again. So a tensor is cut into
what stays and what goes. Both together are as large as it was, and it is made of them again:

    as it was   [ whole          ]
    tried       [ whole          ] beside a small one that is blank
    in parts    [ small ][ rest  ]

Memory that nobody has written to takes no room. So a small tensor may be blank as long as nothing
but its shape is asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from prune_speedup.engine.labels import Array

__all__ = ["Numbers", "Part", "cut", "give_numbers", "in_order_of", "is_blank", "places", "put"]

_LARGE = 1 << 23
"""From so many bytes on, a tensor of a large model is cut so, which takes longer than copying."""

_KINDS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_DEVICES = frozenset({"cpu", "cuda"})


class Part:
    """What stays of a tensor when it is cut, and what goes.

    Attributes:
        kept: The indices that stay, by axis.
        blank: A tensor of the small shape, as long as nobody has asked for numbers.
        small: What stays.
        rest: What goes with each axis in turn, once nobody has the whole any more; `None` where it
            is zero, as most of what was masked is.
    """

    def __init__(self, whole: Tensor, kept: Mapping[int, Array]) -> None:
        """Have a shape alone."""
        self.kept = kept
        self._size, self._stride = whole.shape, whole.stride()
        self._shape = [len(kept[at]) if at in kept else n for at, n in enumerate(whole.shape)]
        self.blank: Tensor | None = in_order_of(whole, whole.new_empty(self._shape))
        self.small: Tensor | None = None
        self.rest: list[Tensor | None] = []

    def is_in(self, tensor: Tensor) -> bool:
        """Whether a tensor holds it."""
        held = (self.blank, self.small)
        return any(each is not None and _is_same(each, tensor) for each in held)

    def divide(self, whole: Tensor) -> None:
        """Copy what stays, and of what goes all that is not zero."""
        rest: list[Tensor | None] = []
        left = whole
        for axis, kept in _in_turn(self._size, self.kept):
            others = places(_others(kept, self._size[axis]), whole.device)
            gone = left.index_select(axis, others)
            rest.append(None if _is_zero(gone) else gone)
            del gone  # so that what stays may lie where it was
            left = left.index_select(axis, places(kept, whole.device))
        self.small, self.rest = in_order_of(whole, left), rest

    def move_to(self, whole: Tensor) -> None:
        """Lie where the whole was, for memory that is given back may not be found again."""
        assert self.small is not None
        if all(each is None for each in self.rest):
            return
        room = whole.as_strided((whole.numel(),), (1,))
        small = _shaped(room[: self.small.numel()], self.small.shape, whole).copy_(self.small)
        room = room[small.numel() :]
        rest: list[Tensor | None] = []
        for each in self.rest:
            rest.append(None if each is None else room[: each.numel()].view(each.shape).copy_(each))
            room = room[0 if each is None else each.numel() :]
        self.small, self.rest = small, rest

    def joined(self) -> Tensor:
        """The whole again."""
        assert self.small is not None
        joined = self.small
        steps = zip(_in_turn(self._size, self.kept), self.rest, strict=True)
        for (axis, kept), rest in reversed([*steps]):
            size = list(joined.shape)
            size[axis] = self._size[axis]
            grown = joined.new_empty(size)
            if grown.shape == self._size:
                grown = joined.new_empty_strided(size, self._stride)
            grown.index_copy_(axis, places(kept, joined.device), joined)
            others = places(_others(kept, size[axis]), joined.device)
            if rest is None:
                grown.index_fill_(axis, others, 0)
            else:
                grown.index_copy_(axis, others, rest)
            joined = grown
        return joined

    def leave(self) -> None:
        """Keep nothing, for the whole is there."""
        if self.rest:
            self.rest, self.small = [], None
        self.blank = None


class Numbers:
    """What a tensor held at a moment, to be put back.

    Nothing is copied: it is kept alive in one piece, or in parts.
    """

    def __init__(self, tensor: Tensor) -> None:
        """Keep what a tensor holds."""
        self._tensor = tensor
        self._whole: Tensor | None = tensor.data
        self._part: Part | None = None

    def get(self, part: Part | None = None) -> Tensor:
        """The numbers in one piece, or a part of them.

        For a part, they are divided, unless somebody else holds their memory: after going back, he
        is to hold it still.
        """
        if part is None:
            return self._in_one()
        if part.small is None:
            whole = self._in_one()
            if self._is_alone():
                part.divide(whole)
                self._part = part
                self._whole = None
                part.move_to(whole)
            else:
                part.small = in_order_of(whole, cut(whole, part.kept))
        assert part.small is not None
        return part.small

    @property
    def in_parts(self) -> bool:
        """Whether they were prepared for being cut."""
        return self._part is not None

    def found_in(self, tensor: Tensor) -> tuple[bool, Part | None]:
        """Whether a tensor holds these, or a part of them."""
        if self._part is not None and self._part.is_in(tensor):
            return True, self._part
        return self._whole is not None and _is_same(self._whole, tensor), None

    def cut(self, kept: Mapping[int, Array]) -> Part | None:
        """Prepare for being cut; `None` where that could not be undone without a second copy.

        Args:
            kept: The indices that stay, by axis.
        """
        if not kept or not self._is_large() or not self._is_alone():
            return None
        self._part = part = Part(self._in_one(), kept)
        assert part.blank is not None
        _blank[part.blank.untyped_storage()._cdata] = self
        return part

    def blank_in(self, tensor: Tensor) -> Part | None:
        """The part that is blank, if it is in the memory of a tensor."""
        part = self._part
        if part is None or part.blank is None:
            return None
        memory = part.blank.untyped_storage()._cdata
        return part if memory == tensor.untyped_storage()._cdata else None

    def give(self, part: Part) -> None:
        """Write numbers where a part is blank, for whoever has seen that memory."""
        blank, whole = part.blank, self._in_one()
        if blank is not None:
            part.small = blank.copy_(cut(whole, part.kept))

    def let_go(self) -> None:
        """Keep the part alone, in memory of its own: nobody goes back any more."""
        tensor, part = self._tensor, self._part
        is_part = self._whole is None and part is not None and part.is_in(tensor)
        if is_part and tensor.untyped_storage().nbytes() > tensor.nbytes:
            put(tensor, tensor.data.clone(), tensor.grad)
        self._whole = self._part = None

    def _in_one(self) -> Tensor:
        if self._whole is None:
            assert self._part is not None
            self._whole = self._part.joined()
        if self._part is not None:
            self._part.leave()
        return self._whole

    def _is_alone(self) -> bool:
        """Whether nobody but this and the tensor holds their memory."""
        whole, tensor = self._whole, self._tensor
        if whole is None or not _COUNTED or tensor._use_count() > 1:  # type: ignore[attr-defined]
            return False
        memory = whole.untyped_storage()
        if not memory.resizable() or (whole.is_cpu and memory.is_shared()):
            return False  # an array, a file or another process may have it
        known = 3 if _is_same(whole, tensor) else 2  # with `memory` itself
        return torch._C._storage_Use_Count(memory._cdata) == known

    def _is_large(self) -> bool:
        whole = self._whole
        return (
            whole is not None
            and whole.nbytes >= _LARGE
            and type(self._tensor) is nn.Parameter
            and whole.layout is torch.strided
            and whole.dtype in _KINDS
            and whole.device.type in _DEVICES
            and whole.untyped_storage().nbytes() == whole.nbytes
            and (whole.is_contiguous() or _channels_last(whole) is not None)
        )


_COUNTED = hasattr(torch.Tensor, "_use_count") and hasattr(torch._C, "_storage_Use_Count")
"""Whether this torch tells how many hold a tensor, or its memory."""

_blank: WeakValueDictionary[int, Numbers] = WeakValueDictionary()
"""Of what a part is blank, by the memory of that."""


def is_blank(tensor: Tensor) -> bool:
    """Whether a tensor has a shape alone, and no numbers yet."""
    return _blank_in(tensor) is not None


def give_numbers(tensors: Iterable[Tensor]) -> bool:
    """Give numbers to those that are blank; return whether any was."""
    blank = [found for tensor in tensors if (found := _blank_in(tensor)) is not None]
    for numbers, part in blank:
        numbers.give(part)
    return bool(blank)


def _blank_in(tensor: Tensor) -> tuple[Numbers, Part] | None:
    # Its length would be counted anew at every call of an operator.
    if not _blank.data or tensor.layout is not torch.strided:  # type: ignore[attr-defined]
        return None
    memory = tensor.untyped_storage()._cdata
    numbers = _blank.get(memory)
    # What was blank is gone, and another one may have got its place.
    part = None if numbers is None else numbers.blank_in(tensor)
    return None if numbers is None or part is None else (numbers, part)


def cut(tensor: Tensor, kept: Mapping[int, Array]) -> Tensor:
    """Leave of a tensor the indices of some axes."""
    for axis, indices in _in_turn(tensor.shape, kept):
        tensor = tensor.index_select(axis, places(indices, tensor.device))
    return tensor


def _is_zero(tensor: Tensor) -> bool:
    """Whether all bits are zero; those of -0.0 are not."""
    bits = tensor.contiguous().view(_BITS[tensor.itemsize]).flatten()
    if bits[:_FIRST].any():
        return False
    return not (np.from_dlpack(bits).any() if bits.is_cpu else bits.any())


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_FIRST = 256


def _shaped(room: Tensor, size: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of some size in this room, in the order of another one."""
    if like.is_contiguous():
        return room.view(size)
    batch, channels, *others = size
    return room.view(batch, *others, channels).movedim(-1, 1)


def _in_turn(shape: Sequence[int], kept: Mapping[int, Array]) -> list[tuple[int, Array]]:
    """The axes in the order in which they are cut.

    What leaves least goes first, so that the other axes copy as little as there is.
    """
    return sorted(kept.items(), key=lambda item: len(item[1]) / shape[item[0]])


def _others(indices: Array, size: int) -> Array:
    others = np.ones(size, np.bool_)
    others[indices] = False
    return np.flatnonzero(others)


def places(indices: Array, device: torch.device) -> Tensor:
    """Indices of a plan as a tensor where they are needed."""
    return torch.from_numpy(indices).to(device)


def in_order_of(tensor: Tensor, data: Tensor) -> Tensor:
    """The data with channels last in memory, if that is how the tensor has them."""
    order = None if tensor.is_contiguous() else _channels_last(tensor)
    return data if order is None else data.contiguous(memory_format=order)


def _channels_last(tensor: Tensor) -> torch.memory_format | None:
    """The order in memory in which a tensor has its channels last; `None` if it has not."""
    order = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    if order is None or not tensor.is_contiguous(memory_format=order):
        return None
    return order


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same piece of memory."""
    return (
        one.untyped_storage()._cdata == other.untyped_storage()._cdata
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.storage_offset() == other.storage_offset()
    )


def put(tensor: Tensor, data: Tensor, grad: Tensor | None) -> None:
    """Give a tensor other numbers, perhaps of another shape, and its gradient with them."""
    tensor.grad = None
    if tensor.shape != data.shape:
        # A loss that is still in scope keeps alive what collects this tensor's gradients, and
        # that remembers the shape. Only a change of type makes torch begin a new one.
        other = torch.float32 if tensor.dtype == torch.float64 else torch.float64
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = data
    tensor.grad = grad
