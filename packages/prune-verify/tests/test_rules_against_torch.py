"""Each rule, held to the real operator: what is accepted is so, on random shapes and zeros."""

import numpy as np
from against_torch import F, follows, holds, part, proper, quick, sizes, small, torch, value
from hypothesis import assume, given
from hypothesis import strategies as st

from prune_verify.known import Value, derived
from prune_verify.vocabulary import EVEN, FUNCTIONS, MOVES, OF_ZEROS, OPERATORS, ROWS

UNARY = {
    "relu": torch.relu, "gelu": F.gelu, "silu": F.silu, "sigmoid": torch.sigmoid, "exp": torch.exp,
    "tanh": torch.tanh, "abs": torch.abs, "neg": torch.neg, "square": torch.square, "mish": F.mish,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "elu": F.elu, "softplus": F.softplus,
    "leaky_relu": F.leaky_relu, "erf": torch.erf, "sin": torch.sin, "log1p": torch.log1p,
    "sign": torch.sign, "cos": torch.cos, "expm1": torch.expm1, "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
}  # fmt: skip
BINARY = {
    "add": torch.add, "sub": torch.sub, "rsub": torch.rsub, "mul": torch.mul, "div": torch.div,
    "maximum": torch.maximum, "minimum": torch.minimum, "atan2": torch.atan2,
    "prelu": lambda x, slope: torch.where(x > 0, x, slope * x),
}  # fmt: skip
POSITIVE = {"log1p", "sqrt", "rsqrt"}


@quick
@given(st.data(), st.sampled_from(sorted(UNARY)))
def test_functions_of_one_number(data, name):
    shape = (2, data.draw(sizes), data.draw(sizes))
    x, numbers = data.draw(value(shape, {1: data.draw(part(shape[1]))}, constants=True))
    if name in POSITIVE:
        x, numbers = x._replace(known=abs(x.known)), numbers.abs()
    told = {"function": name, "arguments": [{"value": 0}]}
    made = follows({"op": "pointwise", "with": told}, [x], [x])
    with np.errstate(all="ignore"):
        known = np.isfinite(made.known) | np.isnan(made.known)
    assume(known.all())
    holds(made, UNARY[name](numbers), UNARY[name](small(x, numbers)))


@quick
@given(st.data(), st.sampled_from(sorted(BINARY)))
def test_functions_of_two_numbers(data, name):
    width = data.draw(sizes)
    kept = [data.draw(part(width)) for _ in range(2)]
    kept[1] = kept[0] if data.draw(st.integers(0, 3)) else kept[1]
    x, one = data.draw(value((2, width, 3), {1: kept[0]}, constants=True))
    wide = data.draw(st.booleans())
    y, two = data.draw(value((width, 1) if wide else (1, 3), {0: kept[1]} if wide else {}))
    if name == "div":
        two, y = torch.exp(two), y._replace(known=np.exp(y.known))
    told = {"function": name, "arguments": [{"value": 0}, {"value": 1}]}
    made = follows({"op": "pointwise", "with": told}, [x, y], [x])
    if made is None:
        assert wide
        assert kept[0] != kept[1]
        return
    holds(made, BINARY[name](one, two), BINARY[name](small(x, one), small(y, two)))


@quick
@given(st.data(), st.sampled_from(["clamp", "pow", "where", "cast"]))
def test_functions_that_are_told_numbers(data, name):
    width = data.draw(st.integers(2, 4))
    kept = {1: data.draw(part(width))}
    x, one = data.draw(value((2, width), kept, constants=True))
    y, two = data.draw(value((2, width), kept, constants=True))
    low, high = data.draw(st.sampled_from([(0.0, 1.0), (-2.0, -1.0), (None, 0.5)]))
    cases = {
        "clamp": ([{"value": 0}, low, high], lambda x, y: torch.clamp(x, low, high)),
        "pow": ([{"value": 0}, 2], lambda x, y: x**2),
        "where": (
            [{"value": 1}, {"value": 0}, 0.0],
            lambda x, y: torch.where(y != 0, x, torch.zeros_like(x)),
        ),
        "cast": ([{"value": 0}, "int64"], lambda x, y: x.long()),
    }
    arguments, function = cases[name]
    told = {"function": name, "arguments": arguments}
    made = follows({"op": "pointwise", "with": told}, [x, y], [x])
    holds(made, function(one, two), function(small(x, one), small(y, two)))


def rows(function, keepdim=True):
    """A function of torch along axes, which stay."""
    return lambda x, axes: function(x, dim=axes, keepdim=True) if keepdim else function(x, axes)


def one_by_one(function):
    def over(x, axes):
        for axis in axes:
            x = function(x, axis)
        return x

    return over


ALONG = {
    "sum": rows(torch.sum), "mean": rows(torch.mean), "amax": rows(torch.amax),
    "amin": rows(torch.amin), "var": rows(torch.var), "std": rows(torch.std),
    "norm": rows(torch.linalg.vector_norm), "logsumexp": rows(torch.logsumexp),
    "var_mean": lambda x, axes: torch.var_mean(x, axes, keepdim=True)[0],
    "max": lambda x, axes: x.amax(axes, keepdim=True),
    "min": lambda x, axes: x.amin(axes, keepdim=True),
    "prod": one_by_one(lambda x, axis: x.prod(axis, keepdim=True)),
    "any": lambda x, axes: (x > 0).any(dim=axes, keepdim=True).double(),
    "all": lambda x, axes: (x > 0).all(dim=axes, keepdim=True).double(),
    "normalise": lambda x, axes: (x - x.mean(axes, True))
    / torch.sqrt(x.var(axes, correction=0, keepdim=True) + 1e-5),
    "rms_normalise": lambda x, axes: x * torch.rsqrt((x**2).mean(axes, True) + 1e-5),
}  # fmt: skip
ALONG_ONE = {
    "softmax": torch.softmax, "log_softmax": torch.log_softmax, "cumsum": torch.cumsum,
    "cumprod": torch.cumprod, "sort": lambda x, axis: x.sort(axis)[0],
    "argsort": lambda x, axis: x.argsort(axis).double(),
    "argmax": lambda x, axis: x.argmax(axis, keepdim=True).double(),
    "argmin": lambda x, axis: x.argmin(axis, keepdim=True).double(),
    "median": lambda x, axis: x.median(axis, keepdim=True)[0],
    "topk": lambda x, axis: x.topk(1, axis)[0],
    "fft": lambda x, axis: torch.fft.fft(x, dim=axis).real,
}  # fmt: skip
ON_PLACES = {
    "max_pool": lambda x: F.max_pool2d(x, 2, padding=1),
    "avg_pool": lambda x: F.avg_pool2d(x, 2, padding=1),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_max_pool": lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    "nearest": lambda x: F.interpolate(x, (5, 3)),
    "nearest_exact": lambda x: F.interpolate(x, (5, 3), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, (5, 3), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, (5, 3), mode="bicubic"),
    "bilinear_aa": lambda x: F.interpolate(x, (5, 3), mode="bilinear", antialias=True),
    "bicubic_aa": lambda x: F.interpolate(x, (5, 3), mode="bicubic", antialias=True),
    "reflection_pad": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "replication_pad": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "tril": torch.tril, "triu": torch.triu,
    "linear": lambda x: F.interpolate(x[0], 5, mode="linear")[None],
    "trilinear": lambda x: F.interpolate(x[None], (3, 2, 5), mode="trilinear")[0],
}  # fmt: skip


def along(name, axes, there, **more):
    told = {"function": name, "axes": list(axes), "size": [there.shape[a] for a in axes], **more}
    return {"op": "along", "with": told}


@quick
@given(st.data(), st.sampled_from(sorted({*ALONG, *ALONG_ONE})))
def test_functions_of_rows(data, name):
    shape = (data.draw(sizes), data.draw(sizes), data.draw(st.integers(2, 4)))
    axes = sorted(data.draw(st.sets(st.integers(0, 2), min_size=1)))
    axes = axes[:1] if name in ALONG_ONE else axes
    assume(name not in ("var", "std", "var_mean") or np.prod([shape[a] for a in axes]) > 1)
    cut = data.draw(st.integers(0, 2))
    x, numbers = data.draw(value(shape, {cut: data.draw(part(shape[cut]))}, constants=True))

    def function(x):
        return ALONG_ONE[name](x, axes[0]) if name in ALONG_ONE else ALONG[name](x, axes)

    there = function(numbers)
    step = along(name, axes, there, **({"told": [2]} if name == "norm" else {}))
    made = follows(step, [x], [x])
    if made is None:
        assert cut in axes
        return
    holds(made, there, function(small(x, numbers)))


@quick
@given(st.data(), st.sampled_from(sorted(ON_PLACES)))
def test_pools_and_upsampling(data, name):
    width = data.draw(sizes)
    shape = (1, width, 4, 4)
    cut = data.draw(st.sampled_from([1, 1, 1, 2]))
    x, numbers = data.draw(value(shape, {cut: data.draw(part(shape[cut]))}, constants=True))
    axes = {"linear": [3], "trilinear": [1, 2, 3]}.get(name, [2, 3])
    there = ON_PLACES[name](numbers)
    made = follows(along(name, axes, there), [x], [x])
    if made is None:
        assert cut in axes
        return
    holds(made, there, ON_PLACES[name](small(x, numbers)))


@quick
@given(st.data(), st.sampled_from(["gather", "scatter", "scatter_add", "grid_sample"]))
def test_functions_that_are_told_places(data, name):
    width, length = data.draw(sizes), data.draw(st.integers(1, 3))
    kept = {1: data.draw(part(width))}
    if name == "grid_sample":
        x, numbers = data.draw(value((2, width, 3, 3), kept, constants=True))
        grid = torch.rand(2, length, 2, 2, dtype=torch.float64) * 2 - 1
        where = derived((2, 1, length * 2, 2), {})
        made = follows(
            {"op": "along", "with": {"function": name, "axes": [2, 3], "size": [length, 2]}},
            [x, where],
            [x],
        )
        there = F.grid_sample(numbers, grid, align_corners=False)
        return holds(made, there, F.grid_sample(small(x, numbers), grid, align_corners=False))
    x, numbers = data.draw(value((3, width), kept, constants=True))
    y, others = data.draw(value((length, width), kept, constants=True))
    places = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (length, 1)))
    where = derived((length, 1), {})

    def function(x, y):
        at = places.expand(-1, x.shape[1])
        if name == "gather":
            return x.gather(0, at)
        return x.scatter(0, at, y) if name == "scatter" else x.scatter_add(0, at, y)

    there = function(numbers, others)
    made = follows(along(name, [0], there), [x, where] + ([] if name == "gather" else [y]), [x])
    return holds(made, there, function(small(x, numbers), small(y, others)))


@quick
@given(st.data(), st.sampled_from(["normalise", "rms_normalise", "mean", "var"]))
def test_functions_of_the_rest_of_a_row(data, name):
    """What is left alone is used, and the rest is zero: that is what both models are said to do."""
    width = data.draw(st.integers(2, 5))
    stays = data.draw(part(width))
    assume(len(stays) not in (1, width))
    x, numbers = data.draw(value((3, width), {1: stays}))
    here = ALONG[name](small(x, numbers), [1])
    there = here
    if "normalise" in name:
        there = torch.zeros(3, width, dtype=torch.float64)
        there[:, stays] = here
    step = along(name, [1], there, over={"1": 0})
    holds(follows(step, [x], [x], [stays]), there, here)
    other = [index for index in range(width) if index not in stays]
    assert follows(step, [x], [x], [other]) is None


@quick
@given(st.data())
def test_group_and_layer_norm(data):
    """A norm of groups: apart, normalised, together again, with scales and shifts."""
    groups, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    stays = data.draw(part(groups))
    kept = [g * width + i for g in stays for i in range(width)]
    shape = (2, groups * width, 4)
    x, numbers = data.draw(value(shape, {1: kept}))
    apart = [2, groups, width, 4]
    fewer = [2, len(stays), width, 4]
    claimed = derived(apart, proper({1: stays}, apart))
    step = {"op": "move", "with": {"moves": [["reshape", apart]]}}
    x = follows(step | {"small": {"moves": [["reshape", fewer]]}}, [x], [claimed])
    there = F.group_norm(numbers, groups)
    x = follows(along("normalise", [2, 3], there.reshape(apart)), [x], [x])
    claimed = derived(shape, proper({1: kept}, shape))
    step = {"op": "move", "with": {"moves": [["reshape", list(shape)]]}}
    x = follows(step | {"small": {"moves": [["reshape", [2, len(kept), 4]]]}}, [x], [claimed])
    holds(x, there, F.group_norm(small(claimed, numbers), len(stays)))


@quick
@given(st.data())
def test_products_of_matrices(data):
    size, lead = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    kept = [data.draw(part(size)), data.draw(part(3)), data.draw(part(lead))]
    a, one = data.draw(value((lead, 4, size), {2: kept[0], 0: kept[2]}, constants=True))
    batched = data.draw(st.booleans())
    shape, cut = ((lead, size, 3), {1: kept[0], 2: kept[1], 0: kept[2]}) if batched else (
        (size, 3), {0: kept[0], 1: kept[1]})  # fmt: skip
    b, two = data.draw(value(shape, cut))
    bias, three = data.draw(value((3,), {0: kept[1]}))
    made = follows({"op": "matmul"}, [a, b, bias], [a])
    if made is None:
        gone = np.setdiff1d(np.arange(size), kept[0])
        rows, columns = one[..., gone], two[..., gone, :]
        assert len(gone)
        assert not (rows == 0).all() or not (columns == 0).all()
        return
    holds(made, one @ two + three, small(a, one) @ small(b, two) + small(bias, three))


@quick
@given(st.data())
def test_convolutions(data):
    groups, width, out = (data.draw(st.integers(1, 3)) for _ in range(3))
    turned = data.draw(st.booleans())
    stays = data.draw(part(groups))
    inner = data.draw(part(width))
    made_of = data.draw(part(out))
    reads = [g * width + i for g in stays for i in inner]
    makes = [g * out + o for g in stays for o in made_of]
    x, numbers = data.draw(value((2, groups * width, 5), {1: reads}, constants=True))
    w, weight = data.draw(value((groups * out, width, 3), {0: makes, 1: inner}))
    padding = data.draw(st.integers(0, 1))
    told = {"stride": [1], "padding": [padding], "dilation": [1], "output_padding": [0]}

    def run(x, weight, groups):
        if not turned:
            return F.conv1d(x, weight, padding=padding, groups=groups)
        apart = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
        apart = apart.reshape(-1, *apart.shape[2:])
        return F.conv_transpose1d(x, apart, padding=padding, groups=groups)

    there = run(numbers, weight, groups)
    told |= {"transposed": turned, "groups": groups, "size": [there.shape[2]]}
    step = {"op": "conv", "with": told, "small": {"groups": len(stays)}}
    made = follows(step, [x, w], [x])
    if made is None:
        gone = np.setdiff1d(np.arange(groups * width), reads)
        assert len(inner) < width
        assert not (x.known == 0).any() or not len(gone)
        return
    holds(made, there, run(small(x, numbers), small(w, weight), len(stays)))


@quick
@given(st.data())
def test_batch_norm(data):
    """Statistics, a scale and a shift along one axis, as the certificate has them."""
    width = data.draw(sizes)
    kept = data.draw(part(width))
    x, numbers = data.draw(value((2, width, 3), {1: kept}, constants=True))
    told = [data.draw(value((width, 1), {0: kept}, constants=at == 1)) for at in range(4)]
    mean, shift, scale, var = (tensor for _, tensor in told)
    values = [x, *(v for v, _ in told)]
    values[4] = derived((width, 1), values[4].kept)
    var = var.abs() + 0.1

    def derive(function, *ins):
        arguments = [{"value": at} for at in range(len(ins))]
        told = {"function": function, "arguments": arguments}
        return follows({"op": "pointwise", "with": told}, ins, [x])

    made = derive("mul", derive("sub", x, values[1]), derive("rsqrt", values[4]))
    made = derive("add", derive("mul", made, values[3]), values[2])

    def norm(x, *told):
        mean, shift, scale, var = (each.flatten() for each in told)
        return F.batch_norm(x, mean, var, scale, shift, eps=0.0)

    less = [small(v, t) for v, t in zip(values[1:], (mean, shift, scale, var), strict=True)]
    holds(made, norm(numbers, mean, shift, scale, var), norm(small(x, numbers), *less))


ONE_MOVE = {
    "reshape": (lambda x, w: x.reshape(2, -1, w), lambda x, w: [2, x.shape[1] // w, w]),
    "permute": (lambda x, w: x.permute(1, 0), lambda x, w: [1, 0]),
    "expand": (lambda x, w: x.expand(3, *x.shape), lambda x, w: [3, *x.shape]),
    "repeat": (lambda x, w: x.repeat(3, 1), lambda x, w: [3, 1]),
}
"""A move as torch does it, and what a certificate says of it; `w` channels belong together."""
WITH_AXIS = {
    "slice": (lambda x: x[1:], [0, 1, 2, 1]),
    "flip": (lambda x: x.flip(0), [0]),
    "roll": (lambda x: x.roll(1, 0), [0, 1]),
    "window": (lambda x: x.unfold(0, 2, 1), [0, 2, 1]),
    "diagonal": (lambda x: x[:, None].expand(-1, 3, -1).diagonal(1, 0, 1), [1, 0, 1]),
    "cat": (lambda x: torch.cat([x, x], 0), [0]),
    "write": (
        lambda x: torch.cat([x[:1], x[:1]], 0),
        [[["slice", 0, 1, 2, 1]]],
    ),
}


@quick
@given(st.data(), st.sampled_from(sorted(ONE_MOVE)))
def test_numbers_that_move(data, name):
    lead, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    kept = data.draw(part(lead))
    cut = [c * width + i for c in kept for i in range(width)]
    x, numbers = data.draw(value((2, lead * width), {1: cut}, constants=True))
    here = small(x, numbers)
    function, written = ONE_MOVE[name]
    there = function(numbers, width)
    axis = {"permute": 0, "expand": 2}.get(name, 1)
    claimed = proper({axis: kept if name == "reshape" else cut}, there.shape)
    step = {
        "op": "move",
        "with": {"moves": [[name, written(numbers, width)]]},
        "small": {"moves": [[name, written(here, width)]]},
    }
    made = follows(step, [x], [derived(there.shape, claimed)])
    holds(made, there, function(here, width))


@quick
@given(st.data(), st.sampled_from(sorted(WITH_AXIS)))
def test_numbers_that_move_along_an_axis(data, name):
    width = data.draw(st.integers(1, 4))
    x, numbers = data.draw(value((2, width), {1: data.draw(part(width))}, constants=True))
    function, told = WITH_AXIS[name]
    there, here = function(numbers), function(small(x, numbers))
    values, moves = [x], [[name, *told]]
    if name == "cat":
        values = [x, x]
    if name == "write":
        first = follows({"op": "move", "with": {"moves": [["slice", 0, 0, 1, 1]]}}, [x], [
            derived((1, width), x.kept)])  # fmt: skip
        values = [x, first]
    less = moves
    if name == "diagonal":
        moves = [["reshape", [2, 1, width]], ["expand", [2, 3, width]], *moves]
        count = here.shape[0]
        less = [["reshape", [2, 1, count]], ["expand", [2, 3, count]], *less]
    axis = {"diagonal": 0}.get(name, 1)
    claimed = derived(there.shape, {axis: x.kept[1]} if x.kept else {})
    made = follows({"op": "move", "with": {"moves": moves}, "small": {"moves": less}}, values, [
        claimed])  # fmt: skip
    holds(made, there, here)


@quick
@given(st.data())
def test_tensors_of_one_number(data):
    width = data.draw(sizes)
    kept = proper({0: data.draw(part(width))}, (width, 2))
    told = {"value": data.draw(st.sampled_from([0.0, 1.5])), "shape": [width, 2]}
    claimed = derived((width, 2), kept)
    step = {"op": "fill", "with": told, "small": {"shape": list(claimed.small)}}
    made = follows(step, [], [claimed])
    there = torch.full((width, 2), told["value"], dtype=torch.float64)
    holds(made, there, torch.full(claimed.small, told["value"], dtype=torch.float64))


def test_a_value_says_what_was_removed():
    assert Value((3,), {0: np.array([0, 2])}, np.zeros(1)).gone(0).tolist() == [1]


def test_everything_of_the_vocabulary_is_looked_at():
    assert set(FUNCTIONS) <= {*UNARY, *BINARY, "pow", "cast", "clamp", "where"}
    assert {*MOVES} == {*ONE_MOVE, *WITH_AXIS}
    told_places = {"gather", "scatter", "scatter_add", "grid_sample"}
    assert {*ALONG, *ALONG_ONE, *ON_PLACES, *told_places} == ROWS
    assert EVEN < OF_ZEROS < ROWS
    assert {*OPERATORS} == {
        *("same", "fill", "tensor", "move", "pointwise", "along", "matmul", "conv")
    }
