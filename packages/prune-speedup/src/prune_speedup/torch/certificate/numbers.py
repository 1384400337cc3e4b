"""Operators that move numbers, or work number by number, in the vocabulary of certificates."""

from math import isfinite, prod
from typing import Any

from prune_speedup.engine.graph import Call, Ref
from prune_speedup.torch.certificate.program import Lowering, lowers

__all__ = ["POINTWISE", "cut_to", "plain"]


def _one(lowering: Lowering, call: Call, value: int) -> None:
    """The call made this value."""
    lowering.bind(call.outputs[0], value)


def plain(value: Any) -> Any:
    """A number as JSON has it."""
    if isinstance(value, bool | int | str | type(None)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value)


# -- number by number ------------------------------------------------------------------------------

POINTWISE = {
    "add": ("self other alpha", "add"), "sub": ("self other alpha", "sub"),
    "rsub": ("self other alpha", "rsub"), "mul": ("self other", "mul"), "neg": ("self", "neg"),
    "abs": ("self", "abs"), "exp": ("self", "exp"), "log": ("self", "log"),
    "sqrt": ("self", "sqrt"), "square": ("self", "square"), "pow": ("self exponent", "pow"),
    "sin": ("self", "sin"), "cos": ("self", "cos"), "tanh": ("self", "tanh"),
    "maximum": ("self other", "maximum"), "minimum": ("self other", "minimum"),
    "rsqrt": ("self", "rsqrt"), "reciprocal": ("self", "reciprocal"), "relu": ("self", "relu"),
    "sigmoid": ("self", "sigmoid"), "gelu": ("self approximate", "gelu"),
    "silu": ("self", "silu"), "mish": ("self", "mish"), "clamp": ("self min max", "clamp"),
    "hardtanh": ("self min_val max_val", "clamp"), "hardsigmoid": ("self", "hardsigmoid"),
    "hardswish": ("self", "hardswish"), "leaky_relu": ("self negative_slope", "leaky_relu"),
    "elu": ("self alpha scale input_scale", "elu"), "where": ("condition self other", "where"),
    "softplus": ("self beta threshold", "softplus"), "_prelu_kernel": ("self weight", "prelu"),
    "masked_fill": ("mask value self", "where"),
    "eq": ("self other", "eq"), "ne": ("self other", "ne"), "lt": ("self other", "lt"),
    "le": ("self other", "le"), "gt": ("self other", "gt"), "ge": ("self other", "ge"),
    "logical_and": ("self other", "logical_and"), "logical_or": ("self other", "logical_or"),
    "logical_not": ("self", "logical_not"), "logical_xor": ("self other", "logical_xor"),
    "bitwise_and": ("self other", "bitwise_and"), "bitwise_or": ("self other", "bitwise_or"),
    "bitwise_not": ("self", "bitwise_not"), "bitwise_xor": ("self other", "bitwise_xor"),
    "__and__": ("self other", "bitwise_and"), "__or__": ("self other", "bitwise_or"),
    "erf": ("self", "erf"), "floor": ("self", "floor"), "ceil": ("self", "ceil"),
    "trunc": ("self", "trunc"), "sign": ("self", "sign"), "sgn": ("self", "sgn"),
    "frac": ("self", "frac"), "isnan": ("self", "isnan"), "isinf": ("self", "isinf"),
    "isfinite": ("self", "isfinite"), "log1p": ("self", "log1p"), "expm1": ("self", "expm1"),
    "log2": ("self", "log2"), "log10": ("self", "log10"), "exp2": ("self", "exp2"),
    "floor_divide": ("self other", "floor_divide"), "remainder": ("self other", "remainder"),
    "fmod": ("self other", "fmod"), "atan2": ("self other", "atan2"), "atan": ("self", "atan"),
    "sinh": ("self", "sinh"), "cosh": ("self", "cosh"), "tan": ("self", "tan"),
    "asin": ("self", "asin"), "acos": ("self", "acos"), "erfinv": ("self", "erfinv"),
    "log_sigmoid_forward": ("self", "log_sigmoid"), "celu": ("self alpha", "celu"),
    "selu": ("self", "selu"), "logit": ("self eps", "logit"), "lerp": ("self end weight", "lerp"),
    "addcmul": ("self tensor1 tensor2 value", "addcmul"),
    "addcdiv": ("self tensor1 tensor2 value", "addcdiv"),
    "nan_to_num": ("self nan posinf neginf", "nan_to_num"),
    "threshold": ("self threshold value", "threshold"), "hardshrink": ("self lambd", "hardshrink"),
    "softshrink": ("self lambd", "softshrink"), "heaviside": ("self values", "heaviside"),
}  # fmt: skip
"""What each function of single numbers is told, and how certificates call it."""

_SWAPPED = {"clamp_min": ("min", 0), "clamp_max": ("max", 1)}


def _argument(lowering: Lowering, value: Any) -> Any:
    return Ref(lowering.read(value)) if isinstance(value, Ref) else plain(value)


@lowers(*POINTWISE)
def pointwise(lowering: Lowering, call: Call) -> bool | None:
    """A function of single numbers."""
    names, function = POINTWISE.get(call.name) or POINTWISE[call.name.rstrip("_")]
    told = [call.argument(name) for name in names.split()]
    if function == "pow" and not isinstance(call.args[0], Ref):
        return False
    while told and told[-1] is None and function not in ("clamp",):
        told.pop()
    if function in ("add", "sub", "rsub") and told[2:] == [1]:
        told.pop()
    _one(lowering, call, lowering.pointwise(function, [_argument(lowering, each) for each in told]))
    return None


@lowers("clamp_min", "clamp_max")
def clamp(lowering: Lowering, call: Call) -> None:
    """A bound on one side."""
    name, place = _SWAPPED[call.name.rstrip("_")]
    bounds = [None, None]
    bounds[place] = _argument(lowering, call.argument(name))
    _one(lowering, call, lowering.pointwise("clamp", [_argument(lowering, call.args[0]), *bounds]))


@lowers("div", "true_divide")
def divide(lowering: Lowering, call: Call) -> None:
    """A quotient, rounded or not."""
    mode = call.argument("rounding_mode")
    function = {None: "div", "floor": "floor_divide"}.get(mode, "fmod")
    told = [_argument(lowering, call.argument(name)) for name in ("self", "other")]
    if function == "fmod":  # rounded towards zero
        _one(lowering, call, lowering.pointwise("trunc", [Ref(lowering.pointwise("div", told))]))
    else:
        _one(lowering, call, lowering.pointwise(function, told))


@lowers("_to_copy", "to", "type_as")
def cast(lowering: Lowering, call: Call) -> None:
    """Numbers of another type, or on another device."""
    value = lowering.read(call.args[0])
    assert call.outputs[0] is not None
    kind = lowering.graph.metas[call.outputs[0]].dtype
    if lowering.graph.metas[call.args[0].index].dtype != kind:
        value = lowering.pointwise("cast", [Ref(value), str(kind).removeprefix("torch.")])
    _one(lowering, call, value)


@lowers("alias", "detach", "clone", "contiguous", "lift_fresh", "lift", "lift_fresh_copy")
def same(lowering: Lowering, call: Call) -> None:
    """The same numbers."""
    _one(lowering, call, lowering.read(call.args[0]))


@lowers("copy_", "copy")
def copy(lowering: Lowering, call: Call) -> None:
    """Numbers of one tensor written over another."""
    value = lowering.read(call.args[1])
    shape = lowering.outputs(call)[0]
    if lowering.shape(value) != shape:
        value = lowering.move(value, shape, ["expand", list(shape)])
    kinds = [lowering.graph.metas[call.args[at].index].dtype for at in (0, 1)]
    if kinds[0] != kinds[1]:
        value = lowering.pointwise("cast", [Ref(value), str(kinds[0]).removeprefix("torch.")])
    _one(lowering, call, value)


# -- new numbers -----------------------------------------------------------------------------------

_VALUES = {"zeros": 0, "ones": 1, "empty": 0}


@lowers("zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like")
@lowers("new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor", "fill", "zero")
@lowers("empty_strided", "new_empty_strided")
def fill(lowering: Lowering, call: Call) -> bool | None:
    """A tensor of one number."""
    name = call.name.strip("_").removeprefix("new_").removesuffix("_like").removesuffix("_strided")
    key = {"full": "fill_value", "scalar_tensor": "s", "fill": "value"}.get(name)
    number = call.argument(key) if key else _VALUES.get(name, 0)
    if not isinstance(number, bool | int | float):
        return False
    shape = lowering.outputs(call)[0]
    _one(lowering, call, lowering.fill(plain(float(number)), shape))
    return None


# -- numbers that move -----------------------------------------------------------------------------


@lowers("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten")
def reshape(lowering: Lowering, call: Call) -> bool | None:
    """Another shape."""
    shape = lowering.outputs(call)[0]
    value = lowering.read(call.args[0])
    if prod(lowering.shape(value)) != prod(shape):
        return False  # the bits seen as another type
    # Also where the shape stays: in the small model it may not.
    _one(lowering, call, lowering.move(value, shape, ["reshape", list(shape)]))
    return None


@lowers("as_strided")
def restride(lowering: Lowering, call: Call) -> bool | None:
    """Other strides for the same shape."""
    value = lowering.read(call.args[0])
    if lowering.shape(value) != lowering.outputs(call)[0]:
        return False
    _one(lowering, call, value)
    return None


@lowers("permute", "transpose", "t", "movedim", "swapaxes", "numpy_T")
def permute(lowering: Lowering, call: Call) -> bool | None:
    """Axes in another order."""
    value = lowering.read(call.args[0])
    ndim = len(lowering.shape(value))
    axes = list(range(ndim))
    if call.name == "permute":
        axes = [axis % ndim for axis in call.args[1]]
    elif call.name in ("movedim", "numpy_T"):
        return False
    else:
        one, two = (
            (0, 1)
            if call.name == "t"
            else (call.argument("dim0") % ndim, call.argument("dim1") % ndim)
        )
        if ndim > 1 or call.name != "t":
            axes[one], axes[two] = axes[two], axes[one]
    if axes != sorted(axes):
        value = lowering.move(value, lowering.outputs(call)[0], ["permute", axes])
    _one(lowering, call, value)
    return None


@lowers("expand")
def expand(lowering: Lowering, call: Call) -> None:
    """The same numbers several times."""
    value, shape = lowering.read(call.args[0]), lowering.outputs(call)[0]
    if lowering.shape(value) != shape:
        value = lowering.move(value, shape, ["expand", list(shape)])
    _one(lowering, call, value)


def cut_to(lowering: Lowering, value: int, axis: int, start: int, stop: int, step: int = 1) -> int:
    """A part along one axis."""
    shape = list(lowering.shape(value))
    if (start, stop, step) == (0, shape[axis], 1):
        return value
    shape[axis] = len(range(start, stop, step))
    return lowering.move(value, shape, ["slice", axis, start, stop, step])


@lowers("slice")
def cut(lowering: Lowering, call: Call) -> None:
    """A part along one axis."""
    value = lowering.read(call.args[0])
    shape = lowering.shape(value)
    axis = call.argument("dim") % len(shape)
    start, stop, step = slice(*(call.argument(key) for key in ("start", "end", "step"))).indices(
        shape[axis]
    )
    _one(lowering, call, cut_to(lowering, value, axis, start, max(start, stop), step))


@lowers("select")
def select(lowering: Lowering, call: Call) -> None:
    """One index of an axis."""
    value = lowering.read(call.args[0])
    shape = lowering.shape(value)
    axis = call.argument("dim") % len(shape)
    place = call.argument("index") % shape[axis]
    part = cut_to(lowering, value, axis, place, place + 1)
    _one(lowering, call, lowering.reshape(part, lowering.outputs(call)[0]))


@lowers("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split")
@lowers("unsafe_split_with_sizes", "unbind")
def split(lowering: Lowering, call: Call) -> None:
    """Parts one behind the other."""
    value, start = lowering.read(call.args[0]), 0
    axis = (call.argument("dim") or 0) % len(lowering.shape(value))
    for recorded in call.outputs:
        assert recorded is not None
        shape = lowering.graph.metas[recorded].shape
        width = 1 if call.name == "unbind" else shape[axis]
        part = cut_to(lowering, value, axis, start, start + width)
        lowering.bind(recorded, lowering.reshape(part, shape))
        start += width


def _joined(lowering: Lowering, pieces: list[int], axis: int, shape: tuple[int, ...]) -> int:
    if len(pieces) == 1:
        return pieces[0]
    return lowering.emit("move", pieces, [shape], moves=[["cat", axis]])[0]


@lowers("cat", "concatenate")
def cat(lowering: Lowering, call: Call) -> None:
    """Pieces one behind the other."""
    shape = lowering.outputs(call)[0]
    pieces = [lowering.read(ref) for ref in call.args[0]]
    pieces = [p for p in pieces if lowering.shape(p) != (0,)]
    axis = call.argument("dim") % len(shape)
    _one(lowering, call, _joined(lowering, pieces, axis, shape))


@lowers("stack")
def stack(lowering: Lowering, call: Call) -> None:
    """Pieces one behind the other along a new axis."""
    shape = lowering.outputs(call)[0]
    axis = call.argument("dim") % len(shape)
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    pieces = [lowering.reshape(lowering.read(ref), one) for ref in call.args[0]]
    _one(lowering, call, _joined(lowering, pieces, axis, shape))


@lowers("flip")
def flip(lowering: Lowering, call: Call) -> None:
    """Backwards along axes."""
    value = lowering.read(call.args[0])
    shape = lowering.shape(value)
    moves = [["flip", axis % len(shape)] for axis in call.args[1]]
    _one(lowering, call, lowering.move(value, shape, *moves))


@lowers("roll")
def roll(lowering: Lowering, call: Call) -> bool | None:
    """Round and round along axes."""
    value = lowering.read(call.args[0])
    shape, axes = lowering.shape(value), call.argument("dims")
    if not axes:
        return False
    moves = [["roll", a % len(shape), s] for a, s in zip(axes, call.args[1], strict=True)]
    _one(lowering, call, lowering.move(value, shape, *moves))
    return None


@lowers("repeat")
def repeat(lowering: Lowering, call: Call) -> None:
    """The whole several times."""
    value = lowering.read(call.args[0])
    _one(
        lowering,
        call,
        lowering.move(value, lowering.outputs(call)[0], ["repeat", list(call.args[1])]),
    )


@lowers("unfold")
def unfold(lowering: Lowering, call: Call) -> None:
    """Windows along one axis."""
    value = lowering.read(call.args[0])
    axis = call.argument("dimension") % len(lowering.shape(value))
    move = ["window", axis, call.argument("size"), call.argument("step")]
    _one(lowering, call, lowering.move(value, lowering.outputs(call)[0], move))


@lowers("diagonal")
def diagonal(lowering: Lowering, call: Call) -> None:
    """What lies on a diagonal."""
    value = lowering.read(call.args[0])
    axes = [call.argument(name) % len(lowering.shape(value)) for name in ("dim1", "dim2")]
    move = ["diagonal", call.argument("offset"), *axes]
    _one(lowering, call, lowering.move(value, lowering.outputs(call)[0], move))


@lowers("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
def shuffle(lowering: Lowering, call: Call) -> None:
    """Channels among each other, or among places."""
    value, number, out = lowering.read(call.args[0]), int(call.args[1]), lowering.outputs(call)[0]
    shape = lowering.shape(value)
    lead, (channels, height, width) = list(shape[:-3]), shape[-3:]
    n = len(lead)
    if call.name == "pixel_shuffle":
        apart = [*lead, channels // number**2, number, number, height, width]
        order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    elif call.name == "pixel_unshuffle":
        apart = [*lead, channels, height // number, number, width // number, number]
        order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    else:
        apart = [*lead, number, channels // number, height, width]
        order = [*range(n), n + 1, n, n + 2, n + 3]
    moves = [["reshape", apart], ["permute", order], ["reshape", list(out)]]
    _one(lowering, call, lowering.move(value, out, *moves))


@lowers("constant_pad_nd")
def pad(lowering: Lowering, call: Call) -> None:
    """A number before and behind."""
    value = lowering.read(call.args[0])
    number = plain(float(call.argument("value") or 0))
    widths = list(call.args[1])
    for back, at in enumerate(range(0, len(widths), 2)):
        axis = len(lowering.shape(value)) - 1 - back
        before, behind = widths[at], widths[at + 1]
        size = lowering.shape(value)[axis]
        value = cut_to(lowering, value, axis, max(0, -before), size - max(0, -behind))
        shape = list(lowering.shape(value))
        ends = [
            [lowering.fill(number, [*shape[:axis], width, *shape[axis + 1 :]])] if width > 0 else []
            for width in (before, behind)
        ]
        shape[axis] += max(0, before) + max(0, behind)
        value = _joined(lowering, [*ends[0], value, *ends[1]], axis, tuple(shape))
    _one(lowering, call, value)
