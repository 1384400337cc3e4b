"""Compare two models inside: what their operators make, and not only what they return.

An output may hide a mistake: a maximum, a saturated softmax, a huge constant beside it, a
rectifier that lets nothing through on the example. So every result of every operator is compared,
channel by channel and relative to that channel. Of each channel only its products with a few
random vectors are kept; two channels that differ agree in all of them hardly ever, and a model's
activations are never in memory twice.

What follows from compared results need not be compared again: see `following`.
"""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prune_speedup.engine.graph import Call
from prune_speedup.engine.labels import Array
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.parts import places
from prune_speedup.torch.proof.following import Following, Told
from prune_speedup.torch.record.operators import Operator

__all__ = ["Inside"]

Products = npt.NDArray[np.float64]

_PRODUCTS = 4
_ALLOWED = {torch.float32: 1e-3, torch.float64: 1e-6}
"""By how much a channel may differ, relative to itself."""

_LEAST = {dtype: 64 * torch.finfo(dtype).eps for dtype in _ALLOWED}
"""By how much it may differ in any case, relative to the largest channel: by so many of the
smallest steps."""


@dataclass(slots=True)
class _Print:
    """What is kept of one result.

    Attributes:
        shape: That of the small model's result.
        axis: The channels'.
        products: A column for each channel that the small model has.
        planned: Whether the plan knows the shape.
    """

    shape: tuple[int, ...]
    axis: int
    products: Products
    planned: bool = False


@dataclass(slots=True)
class _Entry:
    """What is kept of one call.

    Attributes:
        operator: What is called.
        module: Where.
        prints: What is kept of each result.
        own: The identities of the model's parameters that it reads.
        follows_from: Of what compared results the result comes, and what else the call was told.
    """

    operator: Operator
    module: str
    prints: list[_Print | None]
    own: tuple[int, ...] = ()
    follows_from: tuple[Any, ...] | None = None


class _Pair(NamedTuple):
    """What two runs have made at the same place, and its type."""

    before: _Print
    now: _Print
    dtype: torch.dtype


class _Room:
    """Memory in which small things are kept one behind the other.

    Each in a place of its own, between results that come and go, would leave holes there that
    nothing fits into.
    """

    def __init__(self, kind: Any) -> None:
        self._free: Products = np.empty(0, kind)

    def keep(self, made: Products, columns: Array | None) -> Products:
        """A copy of some columns of an array; of all unless told which."""
        rows, width = len(made), made.shape[1] if columns is None else len(columns)
        if len(self._free) < rows * width:
            size = max(rows * width, _ROOM)
            # Not of the heap, where what is around it would leave holes of other sizes.
            self._free = np.frombuffer(mmap.mmap(-1, size * made.itemsize), made.dtype)
        place, self._free = self._free[: rows * width], self._free[rows * width :]
        place = place.reshape(rows, width)
        if columns is None:
            place[:] = made
        else:
            made.take(columns, 1, place, "clip")  # otherwise it is buffered
        return place


_ROOM = 1 << 21


class Inside:
    """What the operators of one run have made, held to those of another run.

    Attributes:
        lost: Whether the other run made other calls somewhere.
    """

    def __init__(self, plan: Plan, *, all_results: bool = True) -> None:
        """Begin with nothing.

        Args:
            plan: What was removed.
            all_results: Whether those are compared, too, that follow from compared ones.
        """
        self.lost = self._apart = False
        self._known = None if all_results else Following()
        self._plan = plan
        self._pairs: list[_Pair] = []
        self._made_by: list[_Entry] = []
        self._entries: list[_Entry] = []
        self._next = 0
        self._noise: dict[Any, torch.Tensor] = {}
        self._rooms: dict[np.dtype[Any], _Room] = {}

    def note(
        self,
        operator: Operator,
        module: str,
        told: Told,
        result: Any,
        recorded: Call | None,
    ) -> None:
        """Keep what a call of the masked model has made.

        Args:
            operator: What was called.
            module: Where.
            told: Its arguments.
            result: What it made.
            recorded: The call of the recording that it is.
        """
        prints: list[_Print | None] = []
        known = self._known
        source = None if known is None else known.source(operator, told)
        entry = _Entry(operator, module, prints, _parameters(told), source)
        self._entries.append(entry)
        if known is not None:
            known.note_writes(operator, told)
        for at, tensor in enumerate(_results(operator, result)):
            index = None
            if recorded is not None and at < len(recorded.outputs):
                index = recorded.outputs[at]
            kept = {} if index is None else self._plan.kept_of_value(index)
            if tensor is None or not self._as_planned(tensor, index, kept):
                prints.append(None)
                entry.follows_from = None
                continue
            if known is not None and entry.follows_from is not None:
                together = known.stay_together(tensor, kept, told)
                entry.follows_from = entry.follows_from if together else None
            follows = entry.follows_from is not None
            prints.append(None if follows else self._print(tensor, kept, planned=index is not None))
            if index is not None and known is not None:
                known.note(tensor, (len(self._entries) - 1, at), kept)

    def _as_planned(
        self, tensor: torch.Tensor, index: int | None, kept: Mapping[int, Array]
    ) -> bool:
        """Whether a result is as long as the one of the example where that is cut.

        A loop that takes more steps than on the example makes other calls at the same places.
        """
        if index is None:
            return True
        planned = self._plan.labelling.graph.metas[index].shape
        return all(axis >= tensor.ndim or tensor.shape[axis] == planned[axis] for axis in kept)

    def check(
        self,
        operator: Operator,
        told: Told,
        result: Any,
    ) -> None:
        """Compare what a call of the small model has made."""
        entry = self._find(operator, told)
        source, known = None, self._known
        if known is not None:
            if entry is not None and entry.follows_from is not None:
                source = known.source(operator, told)
            known.note_writes(operator, told)
        if entry is None:
            return
        if source != entry.follows_from:
            self.lost = True
            return
        results = _results(operator, result)
        for at, (before, tensor) in enumerate(zip(entry.prints, results, strict=False)):
            if tensor is None or (before is None and source is None):
                continue
            if before is not None:
                if before.shape != tuple(tensor.shape):
                    # A copy of something may be of any length, and what is unknown cannot be cut.
                    self.lost = self.lost or before.planned
                    continue
                now = _Print(before.shape, before.axis, self._products(tensor, before.axis))
                self._pairs.append(_Pair(before, now, tensor.dtype))
                self._made_by.append(entry)
            if known is not None:
                known.note(tensor, (self._next - 1, at))

    def forget(self) -> int:
        """Keep nothing any more; return how many results were compared."""
        compared = len(self._pairs)
        self._pairs, self._made_by, self._entries = [], [], []
        self._known = None if self._known is None else Following()
        self._rooms, self._noise = {}, {}
        return compared

    @property
    def compared(self) -> int:
        """How many results were compared."""
        return len(self._pairs)

    def worst(self) -> tuple[float, str]:
        """The largest difference, in terms of what is allowed, and the operator that made it."""
        weights = _weights(self._pairs)
        if not weights.any():
            return 0.0, ""
        entry = self._made_by[int(weights.argmax())]
        return float(weights.max()), f"{entry.operator.name} in {entry.module or 'the model'}"

    def moved_to(self, other: "Inside", dtype: torch.dtype) -> float:
        """By how much the worst channel differs that both have noted, in terms of what it may."""
        pairs = [
            _Pair(before, now, dtype)
            for one, two in zip(self._entries, other._entries, strict=False)
            for before, now in zip(one.prints, two.prints, strict=False)
            if before is not None and now is not None and before.shape == now.shape
        ]
        return float(_weights(pairs).max(initial=0))

    def _find(self, operator: Operator, told: Told) -> _Entry | None:
        """The entry of a call, past copies that only one of the models makes.

        Where one of them makes other calls, both are together again once they read a parameter.
        """
        at = self._next
        while at < len(self._entries) and not self._apart:
            entry = self._entries[at]
            if _alike(entry.operator, operator):
                self._next = at + 1
                return entry
            if entry.operator.name not in _PASSED:
                break
            at += 1
        if not self._apart and operator.name in _PASSED:
            return None
        self.lost = self._apart = True
        own = _parameters(told)
        for at in range(self._next, len(self._entries)) if own else ():
            entry = self._entries[at]
            if entry.own == own and _alike(entry.operator, operator):
                self._next, self._apart = at + 1, False
                return entry
        return None

    def _print(self, tensor: torch.Tensor, kept: Mapping[int, Array], *, planned: bool) -> _Print:
        cut = [axis for axis in kept if axis < tensor.ndim]
        along = max(cut, key=lambda axis: tensor.shape[axis], default=_usual_axis(tensor.ndim))
        for axis in cut:
            if axis != along:
                tensor = tensor.index_select(axis, places(kept[axis], tensor.device))
        stay = kept[along] if along in cut else None
        shape = list(tensor.shape)
        if stay is not None:
            shape[along] = len(stay)
        return _Print(tuple(shape), along, self._products(tensor, along, stay), planned)

    def _products(self, tensor: torch.Tensor, axis: int, kept: Array | None = None) -> Products:
        """For each index along an axis, or some of them, its products with random vectors."""
        shape = tensor.shape or (1,)
        folded = tensor.reshape(prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
        made = self._times_noise(folded)
        # It is no number if anything in it is not. A sum would warn of that.
        if not isfinite(np.vdot(made, made)):
            # Of what hides a position, such as -inf or the smallest number, it counts where it is.
            finite = folded.abs() < torch.finfo(folded.dtype).max ** 0.5
            clean = torch.where(finite, folded, torch.zeros_like(folded))
            made = self._times_noise(clean) + self._times_noise((~finite).to(folded.dtype))
        if made.dtype not in self._rooms:
            self._rooms[made.dtype] = _Room(made.dtype)
        return self._rooms[made.dtype].keep(made, kept)

    def _times_noise(self, folded: torch.Tensor) -> Products:
        # The noise stands on the left: few rows times many columns is what kernels are fast at.
        before, _, after = folded.shape
        noise = self._noise_of(before, after, folded)
        if before == 1:
            made = noise @ folded[0].T
        elif after == 1:
            made = noise @ folded[:, :, 0]
        else:
            made = torch.bmm(noise, folded.transpose(1, 2)).sum(0)
        numbers: Products = made.cpu().numpy()
        return numbers

    def _noise_of(self, before: int, after: int, like: torch.Tensor) -> torch.Tensor:
        """Random vectors, `(before, products, after)`; without an axis of one."""
        key = before, after, like.dtype, like.device
        if (noise := self._noise.get(key)) is None:
            generator = torch.Generator("cpu").manual_seed(before * 1_000_003 + after)
            drawn = torch.randn(before, _PRODUCTS, after, generator=generator, device="cpu")
            if before == 1:
                drawn = drawn[0]
            elif after == 1:
                drawn = drawn[:, :, 0].T.contiguous()
            noise = self._noise[key] = drawn.to(like.device, like.dtype)
        return noise


def _weights(pairs: Sequence[_Pair]) -> npt.NDArray[np.float64]:
    """By how much the worst channel of each pair differs, in terms of what it may.

    What is no number counts as infinite.
    """
    weights = np.zeros(len(pairs))
    some: list[int] = []
    channels = 0
    for at, pair in enumerate(pairs):
        some.append(at)
        channels += pair.now.products.shape[1]
        if channels > _AT_ONCE:
            weights[some] = _weights_at_once([pairs[each] for each in some])
            some, channels = [], 0
    weights[some] = _weights_at_once([pairs[each] for each in some])
    return weights


_AT_ONCE = 1 << 15
"""About how many channels are compared at once: of a large model they would take much memory."""


def _weights_at_once(pairs: Sequence[_Pair]) -> npt.NDArray[np.float64]:
    weights = np.zeros(len(pairs))
    every = [(pair.before.products, pair.now.products) for pair in pairs]
    filled = [at for at, (before, _) in enumerate(every) if before.size]
    if not filled:
        return weights
    before, now = (
        np.concatenate([every[at][side] for at in filled], 1, dtype=np.float64) for side in (0, 1)
    )
    lengths = [every[at][0].shape[1] for at in filled]
    starts = np.cumsum([0, *lengths[:-1]])
    share, step = (
        np.repeat([kind[pairs[at].dtype] for at in filled], lengths) for kind in (_ALLOWED, _LEAST)
    )
    with np.errstate(all="ignore"):
        gap, size = (np.sqrt(np.einsum("ij,ij->j", each, each)) for each in (before - now, before))
        largest = np.repeat(np.maximum.reduceat(size, starts), lengths)
        weight = np.where(gap == 0, 0.0, gap / (share * size + step * largest))
    worst = np.maximum.reduceat(weight, starts)
    weights[filled] = np.where(np.isnan(worst), inf, worst)
    return weights


def _parameters(told: Told) -> tuple[int, ...]:
    """The identities of the parameters among the arguments of a call, registered or not."""
    args, kwargs = told
    tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
    return tuple([id(each) for each in tensors if isinstance(each, nn.Parameter)])


_PASSED = {"clone", "slice", "alias"}
_VIEWS = {"view", "_unsafe_view"}


def _alike(one: Operator, other: Operator) -> bool:
    if one.target is other.target:
        return True
    names = {one.name, other.name}
    return names <= _VIEWS or names == {"slice", "alias"}


def _usual_axis(ndim: int) -> int:
    return 1 if ndim > 3 else max(ndim - 1, 0)


def _results(operator: Operator, result: Any) -> list[torch.Tensor | None]:
    """What there is to compare of a result.

    Views and copies are compared where they come from; which of two copies one is cannot be told.
    """
    items = list(result) if isinstance(result, list | tuple) else [result]
    # A product of more than two axes is made of two, and then viewed as more, with no other reader.
    if operator.makes_views or operator.name in ("clone", "_unsafe_view"):
        return [None] * len(items)
    if len(items) > 1 and ("attention" in operator.name or "norm" in operator.name):
        # What a backward pass would need. The mean of what is centred already is all rounding.
        items[1:] = [None] * (len(items) - 1)
    return [_comparable(item) for item in items]


def _comparable(tensor: Any) -> torch.Tensor | None:
    if not isinstance(tensor, torch.Tensor):
        return None
    if tensor.layout is not torch.strided or not tensor.numel():
        return None
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.dtype in _ALLOWED else None
