"""Each rule, held to the real operator: what is accepted is so, on random shapes and zeros."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prune_verify.checker import FUNCTIONS, Checker, Rejected, Value, value_of

torch = pytest.importorskip("torch")
F = torch.nn.functional
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
sizes = st.integers(1, 4)


@st.composite
def value(draw, shape, kept=None, constants=False):
    """A value with cut axes, and numbers that it may have: what is known holds of them."""
    kept = dict(kept or {})
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    indices = [np.asarray(kept.get(axis, range(size))) for axis, size in enumerate(shape)]
    numbers = generator.standard_normal(shape)
    known = np.full(shape, np.nan)
    for axis in kept:
        gone = np.setdiff1d(np.arange(shape[axis]), indices[axis])
        if draw(st.integers(0, 3)):
            place = (slice(None),) * axis + (gone,)
            number = draw(st.sampled_from([0.0, 0.0, 0.75, -1.5])) if constants else 0.0
            numbers[place] = known[place] = number
    return value_of(shape, indices, known), torch.from_numpy(numbers)


@st.composite
def part(draw, size):
    """Some of the indices of an axis, not none."""
    return sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))


def small(one, numbers):
    return numbers[np.ix_(*one.kept)]


def follows(step, values, claimed):
    """What the checker derives, or None where it refuses."""
    checker = Checker({}, {})
    checker.values = dict(enumerate(values))
    try:
        return checker.derive({"in": list(range(len(values))), **step}, claimed)[0]
    except Rejected:
        return None


def holds(made, there, here):
    """The small result is the kept part of the original's, and what is known is so."""
    assert made.shape == tuple(there.shape)
    torch.testing.assert_close(there[np.ix_(*made.kept)], here, atol=1e-9, rtol=1e-9)
    known = torch.from_numpy(np.broadcast_to(made.known, made.shape).astype(float))
    sure = ~known.isnan()
    torch.testing.assert_close(there[sure], known[sure], atol=1e-9, rtol=1e-9)
    assert (there[known == 0] == 0).all()


UNARY = {
    "relu": torch.relu, "gelu": F.gelu, "silu": F.silu, "sigmoid": torch.sigmoid, "exp": torch.exp,
    "tanh": torch.tanh, "abs": torch.abs, "neg": torch.neg, "square": torch.square, "mish": F.mish,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "elu": F.elu, "softplus": F.softplus,
    "leaky_relu": F.leaky_relu, "erf": torch.erf, "sin": torch.sin, "log1p": torch.log1p,
    "sign": torch.sign, "cos": torch.cos, "expm1": torch.expm1,
}  # fmt: skip
BINARY = {
    "add": torch.add, "sub": torch.sub, "rsub": torch.rsub, "mul": torch.mul, "div": torch.div,
    "maximum": torch.maximum, "minimum": torch.minimum, "atan2": torch.atan2,
}  # fmt: skip


@quick
@given(st.data(), st.sampled_from(sorted(UNARY)))
def test_functions_of_one_number(data, name):
    shape = (2, data.draw(sizes), data.draw(sizes))
    x, numbers = data.draw(value(shape, {1: data.draw(part(shape[1]))}, constants=True))
    if name == "log1p":
        assume(bool((numbers > -1).all()))
    told = {"function": name, "arguments": [{"value": 0}]}
    made = follows({"op": "pointwise", "with": told}, [x], [x])
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
@given(st.data())
def test_batch_norm(data):
    width = data.draw(sizes)
    kept = data.draw(part(width))
    x, numbers = data.draw(value((2, width, 3), {1: kept}, constants=True))
    told = [data.draw(value((width,), {0: kept})) for _ in range(2)]
    told += [data.draw(value((width,), {0: kept}, constants=True))]
    spread, var = data.draw(value((width,), {0: kept}))
    told.append((value_of((width,), spread.kept), var.abs() + 0.1))
    values, tensors = [x, *(v for v, _ in told)], [t for _, t in told]
    given_ = {"function": "batch_norm", "arguments": [*({"value": i} for i in range(5)), 1e-5]}
    given_["axes"] = [None, 1, 1, 1, 1]
    made = follows({"op": "pointwise", "with": given_}, values, [x])

    def norm(x, scale, shift, mean, var):
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-5)

    less = [small(v, t) for v, t in told]
    holds(made, norm(numbers, *tensors), norm(small(x, numbers), *less))


ROWS = {
    "sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "var": torch.var, "std": torch.std,
    "softmax": torch.softmax, "cumsum": torch.cumsum, "log_softmax": torch.log_softmax,
    "norm": torch.linalg.vector_norm,
}  # fmt: skip


@quick
@given(st.data(), st.sampled_from(sorted(ROWS)))
def test_functions_of_rows(data, name):
    shape = (data.draw(sizes), data.draw(sizes), data.draw(st.integers(2, 4)))
    axis = data.draw(st.integers(0, 2))
    along = data.draw(st.integers(0, 2))
    assume(name not in ("var", "std") or shape[along] > 1)
    x, numbers = data.draw(value(shape, {axis: data.draw(part(shape[axis]))}, constants=True))
    reduced = name not in ("softmax", "cumsum", "log_softmax")
    told = {"function": name, "axes": [along], **({"keepdim": False} if reduced else {})}
    made = follows({"op": "along", "with": told}, [x], [x])
    if made is None:
        assert axis == along
        return
    function = ROWS[name]
    here = function(small(x, numbers), dim=along)
    holds(made, function(numbers, dim=along), here)


@quick
@given(st.data())
def test_products_of_matrices(data):
    size = data.draw(st.integers(1, 5))
    kept = [data.draw(part(size)), data.draw(part(3))]
    a, one = data.draw(value((2, 4, size), {2: kept[0]}, constants=True))
    b, two = data.draw(value((size, 3), {0: kept[0], 1: kept[1]}))
    bias, three = data.draw(value((3,), {0: kept[1]}))
    made = follows({"op": "matmul"}, [a, b, bias], [a])
    if made is None:
        zero = (one[..., np.setdiff1d(np.arange(size), kept[0])] == 0).all()
        assert not (zero and (a.known == 0).any())
        return
    here = small(a, one) @ small(b, two) + small(bias, three)
    holds(made, one @ two + three, here)


@quick
@given(st.data())
def test_convolutions(data):
    groups, width, out = (data.draw(st.integers(1, 3)) for _ in range(3))
    turned = data.draw(st.booleans())
    stays = data.draw(part(groups))
    inner = data.draw(part(width))
    made_of = data.draw(part(out))
    reads = [g * width + i for g in stays for i in inner]
    x, numbers = data.draw(value((2, groups * width, 5), {1: reads}, constants=True))
    if turned:
        shape, kept = (groups * width, out, 3), {0: reads, 1: made_of}
    else:
        shape, kept = (groups * out, width, 3), {0: [g * out + o for g in stays for o in made_of]}
        kept[1] = inner
    w, weight = data.draw(value(shape, kept))
    padding = data.draw(st.integers(0, 1))
    told = {"stride": [1], "padding": [padding], "dilation": [1], "output_padding": [0]}
    function = F.conv_transpose1d if turned else F.conv1d
    there = function(numbers, weight, padding=padding, groups=groups)
    told |= {"transposed": turned, "groups": groups, "size": [there.shape[2]]}
    step = {"op": "conv", "with": told, "small": {"groups": len(stays)}}
    made = follows(step, [x, w], [x])
    if made is None:
        gone = np.setdiff1d(np.arange(groups * width), reads)
        assert len(inner) < width
        assert not (x.known == 0).any() or not len(gone)
        return
    here = function(small(x, numbers), small(w, weight), padding=padding, groups=len(stays))
    holds(made, there, here)


@quick
@given(st.data())
def test_attention(data):
    heads, width = data.draw(sizes), data.draw(sizes)
    stays = data.draw(part(heads))
    some = data.draw(part(width))
    q, query = data.draw(value((1, heads, 3, 4), {1: stays}))
    k, key = data.draw(value((1, heads, 3, 4), {1: stays}))
    v, numbers = data.draw(value((1, heads, 3, width), {1: stays, 3: some}))
    told = {"scale": 0.5, "causal": False}
    made = follows({"op": "attention", "with": told}, [q, k, v], [q])

    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=0.5)

    here = attend(small(q, query), small(k, key), small(v, numbers))
    holds(made, attend(query, key, numbers), here)


@quick
@given(st.data(), st.sampled_from(["reshape", "permute", "slice", "flip", "roll", "cat", "lookup"]))
def test_numbers_that_move(data, name):
    lead, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    kept = data.draw(part(lead))
    x, numbers = data.draw(
        value((2, lead * width), {1: [c * width + i for c in kept for i in range(width)]})
    )
    here = small(x, numbers)
    if name == "lookup":
        places = torch.tensor([1, 0, 1])
        at = value_of((3,), [np.arange(3)])
        made = follows({"op": "lookup", "with": {"axis": 0}}, [x, at], [x])
        return holds(made, numbers[places], here[places])
    if name == "cat":
        made = follows({"op": "cat", "with": {"axis": 1}}, [x, x], [x])
        return holds(made, torch.cat([numbers] * 2, 1), torch.cat([here] * 2, 1))
    moves = {
        "reshape": (
            lambda x: x.reshape(2, -1, width),
            lambda x: ["reshape", [2, x.shape[1] // width, width]],
        ),
        "permute": (lambda x: x.permute(1, 0), lambda x: ["permute", [1, 0]]),
        "slice": (lambda x: x[1:], lambda x: ["slice", 0, 1, 2, 1]),
        "flip": (lambda x: x.flip(0), lambda x: ["flip", [0]]),
        "roll": (lambda x: x.roll(1, 0), lambda x: ["roll", [1], [0]]),
    }
    function, written = moves[name]
    there = function(numbers)
    claimed = {0: x.kept[1]} if name == "permute" else {1: kept if name == "reshape" else x.kept[1]}
    said = value_of(
        there.shape, [np.asarray(claimed.get(a, range(s))) for a, s in enumerate(there.shape)]
    )
    step = {
        "op": "move",
        "with": {"moves": [written(numbers)]},
        "small": {"moves": [written(here)]},
    }
    return holds(follows(step, [x], [said]), there, function(here))


def test_a_value_says_what_was_cut():
    assert Value((3,), (np.array([0, 2]),), np.zeros(1)).cut() == [0]


def test_every_function_of_one_number_is_looked_at():
    other = {
        "add",
        "sub",
        "rsub",
        "maximum",
        "minimum",
        "pow",
        "cast",
        "prelu",
        "clamp",
        "sqrt",
        "rsqrt",
    }
    assert set(FUNCTIONS) - other <= set(UNARY)
