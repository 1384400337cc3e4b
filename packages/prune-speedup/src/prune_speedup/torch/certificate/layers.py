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
    _one(lowering, call, _along(lowering, made, "sum", [0], (), keepdim=False)[0])


@lowers("_weight_norm_interface")
def weight_norm(lowering: Lowering, call: Call) -> None:
    """A direction times a length."""
    value, length = (lowering.read(ref) for ref in call.args[:2])
    shape = lowering.shape(value)
    keep = call.argument("dim") % len(shape)
    axes = [axis for axis in range(len(shape)) if axis != keep]
    sizes = [n if axis == keep else 1 for axis, n in enumerate(shape)]
    norm = _along(lowering, value, "norm", axes, sizes, keepdim=True, p=2)[0]
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
    ins = [value, weight] + ([lowering.read(call.args[2])] if call.args[2] is not None else [])
    _one(lowering, call, lowering.emit("conv", ins, lowering.outputs(call), **told)[0])
    return None


def _each(number: Any, ndim: int) -> list[int]:
    found = list(number) if isinstance(number, list | tuple) else [number]
    return [int(each) for each in (found * ndim if len(found) == 1 else found)]


@lowers("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention")
@lowers("_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math")
@lowers("_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention")
@lowers("_scaled_dot_product_cudnn_attention")
def attention(lowering: Lowering, call: Call) -> bool | None:
    """Attention."""
    ins = [lowering.read(ref) for ref in call.args[:3]]
    mask = call.argument("attn_mask") or call.argument("attn_bias")
    if call.argument("dropout_p") or call.argument("enable_gqa"):
        return False
    scale = call.argument("scale")
    scale = lowering.shape(ins[0])[-1] ** -0.5 if scale is None else float(scale)
    ins += [] if mask is None else [lowering.read(mask)]
    told = {"scale": scale, "causal": bool(call.argument("is_causal"))}
    _one(lowering, call, lowering.emit("attention", ins, lowering.outputs(call)[:1], **told)[0])
    return None


# -- functions of rows -----------------------------------------------------------------------------


def _along(
    lowering: Lowering, value: int, function: str, axes: list[int], *shapes: Any, **told: Any
) -> list[int]:
    made = shapes or (lowering.shape(value),)
    return lowering.emit("along", [value], made, function=function, axes=axes, **told)


def _affine(lowering: Lowering, value: int, scale: Any, shift: Any, axis: int | None) -> int:
    """Times a scale, plus a shift, of the channels or of the last axes."""
    for function, each in (("mul", scale), ("add", shift)):
        if each is not None:
            told = [Ref(value), Ref(lowering.read(each))]
            value = lowering.pointwise(function, told, [None, axis] if axis is not None else ())
    return value


@lowers("native_layer_norm", "_fused_rms_norm")
def layer_norm(lowering: Lowering, call: Call) -> None:
    """A norm over the last axes."""
    value = lowering.read(call.args[0])
    ndim, count = len(lowering.shape(value)), len(call.argument("normalized_shape"))
    axes = list(range(ndim - count, ndim))
    function = "normalise" if call.name == "native_layer_norm" else "rms_normalise"
    eps = call.argument("eps")
    value = _along(lowering, value, function, axes, eps="of the type" if eps is None else eps)[0]
    shift = call.argument("bias") if call.name == "native_layer_norm" else None
    _one(lowering, call, _affine(lowering, value, call.argument("weight"), shift, None))


@lowers("native_group_norm")
def group_norm(lowering: Lowering, call: Call) -> None:
    """A norm over groups of channels and all places."""
    value, groups = lowering.read(call.args[0]), int(call.argument("group"))
    shape = lowering.shape(value)
    apart = [shape[0], groups, shape[1] // groups, *shape[2:]]
    value = lowering.move(value, apart, ["reshape", apart])
    value = _along(
        lowering, value, "normalise", list(range(2, len(apart))), eps=call.argument("eps")
    )[0]
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
        value = _along(lowering, value, "normalise", others, eps=eps)[0]
        _one(lowering, call, _affine(lowering, value, scale, shift, 1))
        return
    told: list[Any] = [Ref(value)]
    for each, otherwise in ((scale, 1.0), (shift, 0.0), (mean, None), (var, None)):
        told.append(otherwise if each is None else Ref(lowering.read(each)))
    axes: list[int | None] = [None]
    axes += [1] * (sum(isinstance(each, Ref) for each in told) - 1)
    _one(lowering, call, lowering.pointwise("batch_norm", [*told, eps], axes))


_REDUCE = {
    name: name
    for name in [
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "var",
        "std",
        "prod",
        "argmax",
        "argmin",
    ]
}
_REDUCE |= {name: name for name in ["any", "all", "logsumexp", "median", "var_mean"]}
_REDUCE |= {"linalg_vector_norm": "norm", "norm": "norm"}


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
    told: dict[str, Any] = {"keepdim": bool(call.argument("keepdim"))}
    for key in ("correction", "unbiased", "ord", "p"):
        if (number := call.argument(key)) is not None:
            told["p" if key in ("ord", "p") else key] = plain(number)
    outs = _along(lowering, value, name, axes, *lowering.outputs(call), **told)
    _all(lowering, call, outs)
    return None


def _all(lowering: Lowering, call: Call, made: list[int]) -> None:
    for recorded, value in zip((o for o in call.outputs if o is not None), made, strict=True):
        lowering.bind(recorded, value)


_KEEP = {"_softmax": "softmax", "_log_softmax": "log_softmax", "_safe_softmax": "softmax"}
_KEEP |= {name: name for name in ["softmax", "log_softmax", "cumsum", "cumprod", "sort", "argsort"]}


@lowers(*_KEEP)
def along(lowering: Lowering, call: Call) -> bool | None:
    """A number for each of an axis, made of all of them."""
    value = lowering.read(call.args[0])
    ndim = len(lowering.shape(value))
    if not ndim:
        return False
    told = {k: n for k in ("descending", "stable") if (n := call.argument(k)) is not None}
    axes = [call.argument("dim") % ndim]
    outs = _along(lowering, value, _KEEP[call.name], axes, *lowering.outputs(call), **told)
    _all(lowering, call, outs)
    return None


@lowers("tril", "triu")
def triangle(lowering: Lowering, call: Call) -> None:
    """One side of a diagonal."""
    value = lowering.read(call.args[0])
    ndim = len(lowering.shape(value))
    axes = [ndim - 2, ndim - 1]
    _one(
        lowering,
        call,
        _along(lowering, value, call.name.rstrip("_"), axes, diagonal=call.argument("diagonal"))[0],
    )


@lowers("topk")
def topk(lowering: Lowering, call: Call) -> None:
    """The largest of an axis."""
    value = lowering.read(call.args[0])
    shapes = lowering.outputs(call)
    axis = call.argument("dim") % len(shapes[0])
    told = {
        "size": [shapes[0][axis]],
        "largest": call.argument("largest"),
        "sorted": call.argument("sorted"),
    }
    _all(lowering, call, _along(lowering, value, "topk", [axis], *shapes, **told))


@lowers("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d")
@lowers("avg_pool3d", "max_pool2d", "max_pool3d", "max_pool1d")
def pool(lowering: Lowering, call: Call) -> None:
    """One number of each window."""
    value = lowering.read(call.args[0])
    shapes = lowering.outputs(call)
    count = int(call.name.partition("pool")[2][0])
    ndim = len(lowering.shape(value))
    window = _each(call.argument("kernel_size"), count)
    told: dict[str, Any] = {
        "window": window,
        "stride": _each(call.argument("stride") or window, count),
        "padding": _each(call.argument("padding"), count),
        "dilation": _each(call.argument("dilation") or 1, count),
        "ceil": bool(call.argument("ceil_mode")),
    }
    if "avg" in call.name:
        told |= {
            "count_include_pad": bool(call.argument("count_include_pad")),
            "divisor": call.argument("divisor_override"),
        }
    function = "avg_pool" if "avg" in call.name else "max_pool"
    axes = list(range(ndim - count, ndim))
    told["size"] = [shapes[0][axis] for axis in axes]
    _all(lowering, call, _along(lowering, value, function, axes, *shapes, **told))


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
    shapes = lowering.outputs(call)
    axes = list(range(len(shapes[0]) - count, len(shapes[0])))
    told = [plain(each) for each in (*call.args[1:], *call.kwargs.values())]
    size = [shapes[0][axis] for axis in axes]
    _all(lowering, call, _along(lowering, value, function, axes, *shapes, size=size, told=told))


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


# -- rows by number --------------------------------------------------------------------------------


@lowers("embedding", "index_select")
def embedding(lowering: Lowering, call: Call) -> None:
    """Rows of a table."""
    if call.name == "embedding":
        table, places, axis = lowering.read(call.args[0]), lowering.read(call.args[1]), 0
    else:
        table, places = lowering.read(call.args[0]), lowering.read(call.args[2])
        axis = call.args[1] % len(lowering.shape(table))
    shape = lowering.outputs(call)[0]
    _one(lowering, call, lowering.emit("lookup", [table, places], [shape], axis=axis)[0])


@lowers("index")
def index(lowering: Lowering, call: Call) -> bool | None:
    """Rows by number, along one axis."""
    table = lowering.read(call.args[0])
    given = [(axis, ref) for axis, ref in enumerate(call.args[1]) if ref is not None]
    if len(given) != 1 or "bool" in str(lowering.graph.metas[given[0][1].index].dtype):
        return False
    axis, ref = given[0]
    shape = lowering.outputs(call)[0]
    _one(
        lowering, call, lowering.emit("lookup", [table, lowering.read(ref)], [shape], axis=axis)[0]
    )
    return None
