"""Reading and writing by number, and writing to a part, in the vocabulary of certificates."""

from math import prod
from typing import Any

from prune_speedup.engine.graph import Call, Ref
from prune_speedup.torch.certificate.numbers import cut_to
from prune_speedup.torch.certificate.program import Lowering, broadcast, lowers

__all__: list[str] = []


def _one(lowering: Lowering, call: Call, value: int) -> None:
    lowering.bind(call.outputs[0], value)


# -- one number for a row --------------------------------------------------------------------------


def _rows(lowering: Lowering, table: int, places: int, axis: int) -> int:
    """What stands at some places of an axis; axes of the places come in its stead."""
    shape, where = lowering.shape(table), lowering.shape(places)
    flat = lowering.reshape(places, _along(prod(where), axis, len(shape)))
    made = lowering.along([table, flat], "gather", {axis: prod(where)})[0]
    return lowering.reshape(made, (*shape[:axis], *where, *shape[axis + 1 :]))


def _along(size: int, axis: int, ndim: int) -> tuple[int, ...]:
    """The shape of a vector that lies along one axis."""
    return tuple(size if at == axis else 1 for at in range(ndim))


@lowers("embedding")
def embedding(lowering: Lowering, call: Call) -> None:
    """Rows of a table."""
    table, places = (lowering.read(ref) for ref in call.args[:2])
    _one(lowering, call, _rows(lowering, table, places, 0))


@lowers("index_select")
def index_select(lowering: Lowering, call: Call) -> None:
    """Places along one axis."""
    value, places = lowering.read(call.args[0]), lowering.read(call.args[2])
    _one(lowering, call, _rows(lowering, value, places, call.args[1] % len(lowering.shape(value))))


@lowers("index_add", "index_copy")
def write_rows(lowering: Lowering, call: Call) -> bool | None:
    """Rows go to places along one axis."""
    value, places, rows = (lowering.read(call.args[at]) for at in (0, 2, 3))
    shape = lowering.shape(value)
    axis = call.args[1] % max(len(shape), 1)
    if (call.argument("alpha") or 1) != 1 or len(lowering.shape(rows)) != len(shape):
        return False
    flat = lowering.reshape(places, _along(prod(lowering.shape(places)), axis, len(shape)))
    function = "scatter_add" if "add" in call.name else "scatter"
    _one(lowering, call, lowering.along([value, flat, rows], function, {axis: shape[axis]})[0])
    return None


# -- one number for each number --------------------------------------------------------------------


@lowers("gather")
def gather(lowering: Lowering, call: Call) -> None:
    """Of each row, what stands at places of its own."""
    value, places = lowering.read(call.args[0]), lowering.read(call.args[2])
    shape, where = lowering.shape(value), lowering.shape(places)
    axis = call.args[1] % len(shape)
    for other, length in enumerate(where):
        if other != axis and length != shape[other]:
            value = cut_to(lowering, value, other, 0, length)
    _one(lowering, call, lowering.along([value, places], "gather", {axis: where[axis]})[0])


@lowers("scatter", "scatter_add")
def scatter(lowering: Lowering, call: Call) -> bool | None:
    """Numbers go to places along one axis."""
    value, places, source = lowering.read(call.args[0]), lowering.read(call.args[2]), call.args[3]
    shape, where = lowering.shape(value), lowering.shape(places)
    axis = call.args[1] % max(len(shape), 1)
    if call.argument("reduce") is not None or len(where) != len(shape):
        return False
    if any(where[at] != shape[at] for at in range(len(shape)) if at != axis):
        return False
    numbers = lowering.read(source) if isinstance(source, Ref) else lowering.fill(source, where)
    if lowering.shape(numbers) != where:
        return False
    function = "scatter_add" if "add" in call.name else "scatter"
    _one(lowering, call, lowering.along([value, places, numbers], function, {axis: shape[axis]})[0])
    return None


@lowers("grid_sampler_2d", "grid_sampler_3d")
def grid_sample(lowering: Lowering, call: Call) -> None:
    """Channels are sampled at places that something else says."""
    value, grid = lowering.read(call.args[0]), lowering.read(call.args[1])
    out, where = lowering.outputs(call)[0], lowering.shape(grid)
    # The places of a batch, with an axis for the channels and as many others as the value has.
    grid = lowering.reshape(grid, (where[0], 1, *where[1:-2], where[-2] * where[-1]))
    size = dict(enumerate(out[2:], 2))
    told = [call.argument(name) for name in ("interpolation_mode", "padding_mode", "align_corners")]
    _one(lowering, call, lowering.along([value, grid], "grid_sample", size, *told)[0])


# -- several numbers for a row ---------------------------------------------------------------------


class _Lookup:
    """A value whose indexed axes are merged into one, and the places that are meant there."""

    def __init__(self, lowering: Lowering, value: int, items: list[tuple[int, int, int]]) -> None:
        """Merge; an item is the axis at which it begins, how many axes it covers, and places."""
        self.lowering, self.before = lowering, lowering.shape(value)
        axes = [axis for first, count, _ in items for axis in range(first, first + count)]
        self.first = axes[0] if axes == [*range(axes[0], axes[-1] + 1)] else 0
        rest = [axis for axis in range(len(self.before)) if axis not in axes]
        self.order = [*rest[: self.first], *axes, *rest[self.first :]]
        self.turned = [self.before[axis] for axis in self.order]
        end = self.first + len(axes)
        self.lead, self.tail = self.turned[: self.first], self.turned[end:]
        self.size = prod(self.turned[self.first : end])
        self.places = self._flat(items)
        self.where = lowering.shape(self.places)

    def _flat(self, items: list[tuple[int, int, int]]) -> int:
        """One number for the place that several numbers mean."""
        lowering, step, total = self.lowering, 1, None
        for first, count, places in reversed(items):
            size = prod(self.before[first : first + count])
            each = lowering.pointwise("remainder", [Ref(places), size])  # -1 is the last
            if step > 1:
                each = lowering.pointwise("mul", [Ref(each), step])
            if total is not None:
                each = lowering.pointwise("add", [Ref(total), Ref(each)])
            total, step = each, step * size
        assert total is not None
        return total

    def merged(self, value: int) -> int:
        """A value of the shape before, with the indexed axes as one."""
        shape = [*self.lead, self.size, *self.tail]
        turn: list[list[Any]] = [["permute", self.order]]
        turn = [] if self.order == sorted(self.order) else turn
        return self.lowering.move(value, shape, *turn, ["reshape", shape])

    def apart(self, value: int) -> int:
        """The other way round."""
        back: list[list[Any]] = [["reshape", self.turned]]
        if self.order != sorted(self.order):
            back.append(["permute", [self.order.index(axis) for axis in range(len(self.order))]])
        return self.lowering.move(value, self.before, *back)

    def flat_places(self) -> int:
        """The places along the merged axis."""
        ndim = len(self.lead) + 1 + len(self.tail)
        return self.lowering.reshape(self.places, _along(prod(self.where), self.first, ndim))


def _items(lowering: Lowering, call: Call, count: int) -> list[tuple[int, int, int]] | None:
    """The axes that are indexed, and by what; a mask means the places at which it is true."""
    items, axis = [], 0
    for ref in call.args[1]:
        if ref is None:
            axis += 1
            continue
        value, covers = lowering.read(ref), 1
        if "bool" in str(lowering.graph.metas[ref.index].dtype):
            covers = len(lowering.shape(value))
            if len(call.args[1]) != 1 + axis or not covers:
                return None  # beside other indices
            value = lowering.emit("same", [value], [(count,)], call="where it is true")[0]
        items.append((axis, covers, value))
        axis += covers
    return items


@lowers("index")
def index(lowering: Lowering, call: Call) -> bool | None:
    """What stands at places that tensors mean."""
    value, out = lowering.read(call.args[0]), lowering.outputs(call)[0]
    first = next(at for at, ref in enumerate(call.args[1]) if ref is not None)
    items = _items(lowering, call, out[first] if len(out) > first else 1)
    if items is None:
        return False
    found = _Lookup(lowering, value, items)
    made = _rows(lowering, found.merged(value), found.places, found.first)
    _one(lowering, call, lowering.reshape(made, out))
    return None


@lowers("index_put")
def put(lowering: Lowering, call: Call) -> bool | None:
    """Numbers go to places that tensors mean."""
    value, source = lowering.read(call.args[0]), lowering.read(call.args[2])
    shape, given = lowering.shape(value), [ref for ref in call.args[1] if ref is not None]
    if any("bool" in str(lowering.graph.metas[ref.index].dtype) for ref in given):
        if len(given) > 1 or prod(lowering.shape(source)) != 1:
            return False
        mask, before = lowering.read(given[0]), call.args[1].index(given[0])
        behind = len(shape) - before - len(lowering.shape(mask))
        mask = lowering.reshape(mask, (*lowering.shape(mask), *[1] * behind))
        source = lowering.reshape(source, ())
        _one(lowering, call, lowering.pointwise("where", [Ref(mask), Ref(source), Ref(value)]))
        return None
    items = _items(lowering, call, 0)
    assert items is not None
    found = _Lookup(lowering, value, items)
    wide = broadcast([(*found.lead, *found.where, *found.tail), lowering.shape(source)])
    flat = (*found.lead, prod(found.where), *found.tail)
    moves: list[list[Any]] = [["expand", list(wide)], ["reshape", list(flat)]]
    source = lowering.move(source, flat, *moves)
    function = "scatter_add" if call.argument("accumulate") else "scatter"
    values = [found.merged(value), found.flat_places(), source]
    made = lowering.along(values, function, {found.first: found.size})[0]
    _one(lowering, call, found.apart(made))
    return None


@lowers("_grouped_mm")
def grouped_product(lowering: Lowering, call: Call) -> bool | None:
    """A matrix for each run of rows, as experts have."""
    rows, weights, ends = (lowering.read(ref) for ref in call.args[:3])
    (count, width), shape = lowering.shape(rows), lowering.shape(weights)
    if len(shape) != 3:
        return False
    which = lowering.emit("same", [ends], [(count,)], call="the run that each row is in")[0]
    each = _rows(lowering, weights, which, 0)
    row = lowering.reshape(rows, (count, 1, width))
    made = lowering.emit("matmul", [row, each], [(count, 1, shape[2])])[0]
    _one(lowering, call, lowering.reshape(made, (count, shape[2])))
    return None


# -- memory that values share ----------------------------------------------------------------------


@lowers("alias_write")
def alias_write(lowering: Lowering, call: Call) -> bool | None:
    """A value changed because memory that it shares was written to."""
    old, written = call.args
    (root, moves), (other, more) = lowering.memory(old.index), lowering.memory(written.index)
    shape, source = lowering.outputs(call)[0], lowering.read(written)
    if root != other:
        return False
    if more[: len(moves)] == moves:  # a part of it was written
        rest = more[len(moves) :]
        if rest:
            ins = [lowering.read(old), source]
            source = lowering.emit("move", ins, [shape], moves=[["write", [*rest]]])[0]
        _one(lowering, call, source)
        return None
    if moves[: len(more)] == more:  # it is a part of what was written
        _one(lowering, call, lowering.move(source, shape, *moves[len(more) :]))
        return None
    return False
