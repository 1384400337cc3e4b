"""Sums of products, norms, pools and the like, in the vocabulary of certificates."""

from typing import Any

from prune_speedup.engine.graph import Call, Ref
from prune_speedup.torch.certificate.numbers import plain
from prune_speedup.torch.certificate.program import Lowering, broadcast, lowers

__all__: list[str] = []


def _one(lowering: Lowering, call: Call, value: int) -> None:
    lowering.bind(call.outputs[0], value)


# -- sums of products ------------------------------------------------------------------------------


def _matmul(lowering: Lowering, left: int, right: int, bias: int | None = None) -> int:
    one, two = lowering.shape(left), lowering.shape(right)
    shape = (*broadcast([one[:-2], two[:-2]]), one[-2], two[-1])
    ins = [left, right] if bias is None else [left, right, bias]
    return lowering.emit("matmul", ins, [shape])[0]


@lowers("mm", "bmm")
def mm(lowering: Lowering, call: Call) -> None:
    """Rows times columns."""
    _one(lowering, call, _matmul(lowering, *(lowering.read(ref) for ref in call.args[:2])))


@lowers("addmm", "baddbmm")
def addmm(lowering: Lowering, call: Call) -> bool | None:
    """Rows times columns, and something added."""
    if call.argument("alpha") != 1 or call.argument("beta") not in (0, 1):
        return False
    bias, left, right = (lowering.read(ref) for ref in call.args[:3])
    _one(lowering, call, _matmul(lowering, left, right, bias if call.argument("beta") else None))
    return None


@lowers("mv")
def mv(lowering: Lowering, call: Call) -> None:
    """Rows times one column."""
    left, right = (lowering.read(ref) for ref in call.args[:2])
    column = lowering.reshape(right, (*lowering.shape(right), 1))
    made = _matmul(lowering, left, column)
    _one(lowering, call, lowering.reshape(made, lowering.outputs(call)[0]))


@lowers("dot")
def dot(lowering: Lowering, call: Call) -> None:
    """The sum of products of two vectors."""
    both = [Ref(lowering.read(ref)) for ref in call.args[:2]]
    made = lowering.pointwise("mul", both)
    total = lowering.along([made], "sum", {0: 1})[0]
    _one(lowering, call, lowering.reshape(total, ()))


@lowers("_weight_norm_interface")
def weight_norm(lowering: Lowering, call: Call) -> None:
    """A direction times a length."""
    value, length = (lowering.read(ref) for ref in call.args[:2])
    shape = lowering.shape(value)
    keep = call.argument("dim") % len(shape)
    axes = [axis for axis in range(len(shape)) if axis != keep]
    sizes = [n if axis == keep else 1 for axis, n in enumerate(shape)]
    norm = lowering.along([value], "norm", dict.fromkeys(axes, 1), 2)[0]
    ratio = lowering.pointwise("div", [Ref(lowering.reshape(length, sizes)), Ref(norm)])
    _one(lowering, call, lowering.pointwise("mul", [Ref(value), Ref(ratio)]))


@lowers("linear", "matmul")
def linear(lowering: Lowering, call: Call) -> bool | None:
    """Rows times columns, in other words."""
    left, right = (lowering.read(ref) for ref in call.args[:2])
    shapes = lowering.shape(left), lowering.shape(right)
    if min(map(len, shapes)) < 2:
        return False
    if call.name == "linear":
        right = lowering.move(right, shapes[1][::-1], ["permute", [1, 0]])
    bias = call.args[2] if len(call.args) > 2 else None
    made = _matmul(lowering, left, right, None if bias is None else lowering.read(bias))
    _one(lowering, call, made)
    return None


@lowers("convolution", "_convolution")
def convolution(lowering: Lowering, call: Call) -> bool | None:
    """Sums of products over a window."""
    value, weight = (lowering.read(ref) for ref in call.args[:2])
    ndim = len(lowering.shape(weight)) - 2
    if len(lowering.shape(value)) != ndim + 2:
        return False
    told: dict[str, Any] = {
        name: _each(call.argument(name), ndim)
        for name in ("stride", "padding", "dilation", "output_padding")
    }
    told |= {
        "transposed": bool(call.argument("transposed")),
        "groups": int(call.argument("groups")),
    }
    told["size"] = list(lowering.outputs(call)[0][2:])
    if told["transposed"]:
        weight = _turned(lowering, weight, told["groups"])
    ins = [value, weight] + ([lowering.read(call.args[2])] if call.args[2] is not None else [])
    _one(lowering, call, lowering.emit("conv", ins, lowering.outputs(call), **told)[0])
    return None


def _turned(lowering: Lowering, weight: int, groups: int) -> int:
    """The weight of a transposed convolution, laid out as that of another: outputs come first."""
    inputs, outputs, *window = lowering.shape(weight)
    width = inputs // groups
    shape = (groups * outputs, width, *window)
    moves: list[list[Any]] = [
        ["reshape", [groups, width, outputs, *window]],
        ["permute", [0, 2, 1, *range(3, 3 + len(window))]],
        ["reshape", list(shape)],
    ]
    return lowering.move(weight, shape, *moves)


def _each(number: Any, ndim: int) -> list[int]:
    found = list(number) if isinstance(number, list | tuple) else [number]
    return [int(each) for each in (found * ndim if len(found) == 1 else found)]


@lowers("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention")
@lowers("_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math")
@lowers("_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention")
@lowers("_scaled_dot_product_cudnn_attention")
def attention(lowering: Lowering, call: Call) -> bool | None:
    """Attention."""
    query, key, value = (lowering.read(ref) for ref in call.args[:3])
    mask = call.argument("attn_mask") or call.argument("attn_bias")
    if call.argument("dropout_p"):
        return False
    heads = lowering.shape(query)[-3]
    key, value = (_repeated(lowering, each, heads) for each in (key, value))
    shape = lowering.shape(key)
    turned = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    key = lowering.move(key, [shape[axis] for axis in turned], ["permute", turned])
    scale = call.argument("scale")
    scale = shape[-1] ** -0.5 if scale is None else float(scale)
    scores = lowering.pointwise("mul", [Ref(_matmul(lowering, query, key)), scale])
    axis = len(lowering.shape(scores)) - 1
    if call.argument("is_causal"):
        size = lowering.shape(scores)[-2:]
        sees = lowering.along([lowering.fill(1.0, size)], "tril", {0: size[0], 1: size[1]}, 0)[0]
        scores = lowering.pointwise("where", [Ref(sees), Ref(scores), "-inf"])
    if mask is not None:
        lets = lowering.read(mask)
        told: list[Any] = [Ref(lets), Ref(scores), "-inf"]
        plus = lowering.graph.metas[mask.index].real
        scores = lowering.pointwise(
            *(("add", [Ref(scores), Ref(lets)]) if plus else ("where", told))
        )
    shares = lowering.along([scores], "softmax", {axis: lowering.shape(scores)[axis]})[0]
    _one(lowering, call, _matmul(lowering, shares, value))
    return None


def _repeated(lowering: Lowering, value: int, heads: int) -> int:
    """Keys or values of fewer heads, each for several heads of the query."""
    *lead, count, length, width = lowering.shape(value)
    if count == heads:
        return value
    apart, wide = [*lead, count, 1, length, width], [*lead, count, heads // count, length, width]
    shape = [*lead, heads, length, width]
    return lowering.move(value, shape, ["reshape", apart], ["expand", wide], ["reshape", shape])


# -- functions of rows -----------------------------------------------------------------------------


def _affine(lowering: Lowering, value: int, scale: Any, shift: Any, axis: int | None) -> int:
    """Times a scale, plus a shift, of the channels or of the last axes."""
    for function, each in (("mul", scale), ("add", shift)):
        if each is not None:
            told = lowering.read(each)
            told = told if axis is None else _laid(lowering, told, value, axis)
            value = lowering.pointwise(function, [Ref(value), Ref(told)])
    return value


def _laid(lowering: Lowering, vector: int, value: int, axis: int) -> int:
    """A vector along one axis of a value, such as the scales of channels."""
    ones = [1] * (len(lowering.shape(value)) - axis - 1)
    return lowering.reshape(vector, (*lowering.shape(vector), *ones))


def _normalised(lowering: Lowering, value: int, function: str, axes: list[int], eps: Any) -> int:
    shape = lowering.shape(value)
    return lowering.along([value], function, {axis: shape[axis] for axis in axes}, eps)[0]


@lowers("native_layer_norm", "_fused_rms_norm")
def layer_norm(lowering: Lowering, call: Call) -> None:
    """A norm over the last axes."""
    value = lowering.read(call.args[0])
    ndim, count = len(lowering.shape(value)), len(call.argument("normalized_shape"))
    axes = list(range(ndim - count, ndim))
    function = "normalise" if call.name == "native_layer_norm" else "rms_normalise"
    eps = call.argument("eps")
    value = _normalised(lowering, value, function, axes, "of the type" if eps is None else eps)
    shift = call.argument("bias") if call.name == "native_layer_norm" else None
    _one(lowering, call, _affine(lowering, value, call.argument("weight"), shift, None))


@lowers("native_group_norm")
def group_norm(lowering: Lowering, call: Call) -> None:
    """A norm over groups of channels and all places."""
    value, groups = lowering.read(call.args[0]), int(call.argument("group"))
    shape = lowering.shape(value)
    apart = [shape[0], groups, shape[1] // groups, *shape[2:]]
    value = lowering.move(value, apart, ["reshape", apart])
    axes = list(range(2, len(apart)))
    value = _normalised(lowering, value, "normalise", axes, call.argument("eps"))
    value = lowering.move(value, shape, ["reshape", list(shape)])
    _one(
        lowering, call, _affine(lowering, value, call.argument("weight"), call.argument("bias"), 1)
    )


@lowers("_native_batch_norm_legit_no_training", "native_batch_norm", "_native_batch_norm_legit")
@lowers("cudnn_batch_norm", "_batch_norm_no_update", "miopen_batch_norm")
@lowers("_native_batch_norm_legit_functional")
def batch_norm(lowering: Lowering, call: Call) -> None:
    """A norm of each channel, with statistics that were kept or with its own."""
    value = lowering.read(call.args[0])
    scale, shift = call.argument("weight"), call.argument("bias")
    mean, var = call.argument("running_mean"), call.argument("running_var")
    eps = call.argument("eps") if call.argument("eps") is not None else call.argument("epsilon")
    if mean is None or call.argument("training"):
        others = [axis for axis in range(len(lowering.shape(value))) if axis != 1]
        value = _normalised(lowering, value, "normalise", others, eps)
    else:
        var_eps = lowering.pointwise("add", [Ref(lowering.read(var)), eps])
        factor = lowering.pointwise("rsqrt", [Ref(var_eps)])
        for function, each in (("sub", lowering.read(mean)), ("mul", factor)):
            laid = Ref(_laid(lowering, each, value, 1))
            value = lowering.pointwise(function, [Ref(value), laid])
    _one(lowering, call, _affine(lowering, value, scale, shift, 1))


_REDUCE = {
    "sum": "sum", "mean": "mean", "amax": "amax", "amin": "amin", "max": "max", "min": "min",
    "var": "var", "std": "std", "prod": "prod", "argmax": "argmax", "argmin": "argmin",
    "any": "any", "all": "all", "logsumexp": "logsumexp", "median": "median",
    "var_mean": "var_mean", "linalg_vector_norm": "norm", "norm": "norm",
}  # fmt: skip


@lowers(*_REDUCE)
def reduce(lowering: Lowering, call: Call) -> bool | None:
    """One number, or two, for all of some axes."""
    value, name = lowering.read(call.args[0]), _REDUCE[call.name]
    ndim = len(lowering.shape(value))
    axes = call.argument("dim")
    if (name in ("max", "min") and isinstance(call.argument("other"), Ref)) or ndim == 0:
        return False
    axes = [axes] if isinstance(axes, int) else axes
    axes = sorted(axis % ndim for axis in axes) if axes else list(range(ndim))
    told = [call.argument(key) for key in ("correction", "unbiased", "ord", "p")]
    _rows(lowering, call, [value], name, dict.fromkeys(axes, 1), *told)
    return None


def _rows(
    lowering: Lowering, call: Call, values: list[int], name: str, size: dict[int, int], *told: Any
) -> None:
    """A function of rows with all its results, which may have lost the axes of length one."""
    shapes = lowering.outputs(call)
    plain_ = [plain(each) for each in told if each is not None]
    made = lowering.along(values, name, size, *plain_, count=len(shapes))
    recorded = (output for output in call.outputs if output is not None)
    for output, value, shape in zip(recorded, made, shapes, strict=True):
        lowering.bind(output, lowering.reshape(value, shape))


_KEEP = {
    "_softmax": "softmax", "_log_softmax": "log_softmax", "_safe_softmax": "softmax",
    "softmax": "softmax", "log_softmax": "log_softmax", "cumsum": "cumsum", "cumprod": "cumprod",
    "sort": "sort", "argsort": "argsort",
}  # fmt: skip


@lowers(*_KEEP)
def along(lowering: Lowering, call: Call) -> bool | None:
    """A number for each of an axis, made of all of them."""
    value = lowering.read(call.args[0])
    shape = lowering.shape(value)
    if not shape:
        return False
    axis = call.argument("dim") % len(shape)
    told = [call.argument(key) for key in ("descending", "stable")]
    _rows(lowering, call, [value], _KEEP[call.name], {axis: shape[axis]}, *told)
    return None


@lowers("tril", "triu")
def triangle(lowering: Lowering, call: Call) -> None:
    """One side of a diagonal."""
    value = lowering.read(call.args[0])
    shape = lowering.shape(value)
    size = {axis: shape[axis] for axis in (len(shape) - 2, len(shape) - 1)}
    _rows(lowering, call, [value], call.name.rstrip("_"), size, call.argument("diagonal"))


@lowers("topk")
def topk(lowering: Lowering, call: Call) -> None:
    """The largest of an axis."""
    shape = lowering.outputs(call)[0]
    axis = call.argument("dim") % len(shape)
    told = call.argument("largest"), call.argument("sorted")
    _rows(lowering, call, [lowering.read(call.args[0])], "topk", {axis: shape[axis]}, *told)


@lowers("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d")
@lowers("avg_pool3d", "max_pool2d", "max_pool3d", "max_pool1d")
def pool(lowering: Lowering, call: Call) -> None:
    """One number of each window."""
    shape = lowering.outputs(call)[0]
    count = int(call.name.partition("pool")[2][0])
    window = _each(call.argument("kernel_size"), count)
    told = [
        window,
        _each(call.argument("stride") or window, count),
        _each(call.argument("padding"), count),
        _each(call.argument("dilation") or 1, count),
        bool(call.argument("ceil_mode")),
    ]
    if "avg" in call.name:
        told += [bool(call.argument("count_include_pad")), call.argument("divisor_override") or 0]
    function = "avg_pool" if "avg" in call.name else "max_pool"
    size = {axis: shape[axis] for axis in range(len(shape) - count, len(shape))}
    _rows(lowering, call, [lowering.read(call.args[0])], function, size, *told)


_RESIZE = {
    **{
        f"{lead}adaptive_avg_pool{n}d": ("adaptive_avg_pool", n)
        for lead in ("", "_")
        for n in (1, 2, 3)
    },
    **{f"adaptive_max_pool{n}d": ("adaptive_max_pool", n) for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d": ("nearest", n) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": ("nearest_exact", n) for n in (1, 2, 3)},
    **{f"reflection_pad{n}d": ("reflection_pad", n) for n in (1, 2, 3)},
    **{f"replication_pad{n}d": ("replication_pad", n) for n in (1, 2, 3)},
    "upsample_linear1d": ("linear", 1),
    "upsample_bilinear2d": ("bilinear", 2),
    "upsample_bicubic2d": ("bicubic", 2),
    "upsample_trilinear3d": ("trilinear", 3),
    "_upsample_bicubic2d_aa": ("bicubic_aa", 2),
    "_upsample_bilinear2d_aa": ("bilinear_aa", 2),
}


@lowers(*_RESIZE)
def resize(lowering: Lowering, call: Call) -> None:
    """Other places for the same channels."""
    value = lowering.read(call.args[0])
    function, count = _RESIZE[call.name]
    shape = lowering.outputs(call)[0]
    size = {axis: shape[axis] for axis in range(len(shape) - count, len(shape))}
    _rows(lowering, call, [value], function, size, *call.args[1:], *call.kwargs.values())


@lowers("glu")
def glu(lowering: Lowering, call: Call) -> None:
    """One half times the sigmoid of the other."""
    value = lowering.read(call.args[0])
    shape = lowering.outputs(call)[0]
    axis = call.argument("dim") % len(shape)
    halves = [
        lowering.move(value, shape, ["slice", axis, start, start + shape[axis], 1])
        for start in (0, shape[axis])
    ]
    gate = lowering.pointwise("sigmoid", [Ref(halves[1])])
    _one(lowering, call, lowering.pointwise("mul", [Ref(halves[0]), Ref(gate)]))
