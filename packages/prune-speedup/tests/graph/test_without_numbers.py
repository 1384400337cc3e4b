"""What is recorded without its numbers is what is recorded with them."""

from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from prune_speedup.torch.analysis import analysis_of
from prune_speedup.torch.record.recorder import Recorder, trace
from prune_speedup.torch.record.without_numbers import Blanks
from prune_speedup.torch.rules import has_rule

aten = torch.ops.aten
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def check(target, *args, **kwargs):
    """It makes the same, but for the numbers; or nothing, and nothing where torch refuses."""
    made = Blanks().made(target, args, kwargs)
    try:
        real = target(*args, **kwargs)
    except (RuntimeError, ValueError):
        assert made is None
        return False
    if made is None:
        return False
    for one, other in zip(
        *((x if isinstance(x, tuple) else (x,)) for x in (made, real)), strict=True
    ):
        assert one.shape == other.shape
        assert one.stride() == other.stride()
        assert one.dtype == other.dtype
        assert not one.any()
    return True


@st.composite
def convolutions(draw):
    ndim = draw(st.integers(1, 3))
    small, some = st.integers(1, 3), st.integers(0, 2)
    groups, per, out = draw(small), draw(small), draw(small)
    transposed = draw(st.booleans())
    wrong = draw(st.sampled_from([0, 0, 0, 1]))
    dtype = draw(DTYPES)
    first, second = (groups * per, out) if transposed else (groups * out, per)
    x = torch.ones(
        draw(small),
        groups * per + wrong,
        *draw(st.lists(st.integers(1, 9), min_size=ndim, max_size=ndim)),
        dtype=dtype,
    )
    weight = torch.ones(
        first, second, *draw(st.lists(small, min_size=ndim, max_size=ndim)), dtype=dtype
    )
    bias = torch.ones(groups * out, dtype=dtype) if draw(st.booleans()) else None

    def numbers(of):
        return draw(st.lists(of, min_size=ndim, max_size=ndim))

    return (
        x,
        weight,
        bias,
        numbers(small),
        numbers(some),
        numbers(small),
        transposed,
        numbers(some),
        groups,
    )


@settings(max_examples=300, deadline=None)
@given(convolutions())
def test_convolutions(args):
    check(aten.convolution.default, *args)


def test_a_convolution_by_hand():
    x, weight = torch.ones(1, 3, 8, 8), torch.ones(6, 3, 3, 3)
    assert check(
        aten.convolution.default, x, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1
    )
    made = Blanks().made(
        aten.convolution.default, (x, weight, None, [2], [1], [1], False, [0], 1), {}
    )
    assert made.shape == (1, 6, 4, 4)  # one number stands for both axes


def test_memory_in_another_order_is_left_to_torch():
    x = torch.ones(2, 3, 8, 8).to(memory_format=torch.channels_last)
    args = (x, torch.ones(6, 3, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    assert Blanks().made(aten.convolution.default, args, {}) is None


def test_an_axis_of_length_one_may_tell_of_another_order():
    last = {"memory_format": torch.channels_last}
    told = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    x, weight = torch.ones(2, 4, 8, 8), torch.ones(6, 4, 1, 1).to(**last)
    assert not check(aten.convolution.default, x, weight, None, *told)
    gray = torch.ones(2, 1, 8, 8).as_strided((2, 1, 8, 8), (64, 1, 8, 1))
    assert gray.is_contiguous()
    assert not check(aten.convolution.default, gray, torch.ones(6, 1, 3, 3), None, *told)
    assert not check(aten.relu.default, gray)


@pytest.mark.parametrize("target", [aten.relu_, aten.silu_, aten.hardtanh_])
def test_one_number_in_several_places_is_not_written_to(target):
    check(target.default, torch.ones(1, 4).expand(2, 4))


SIZE = st.integers(1, 4)


@settings(max_examples=200, deadline=None)
@given(SIZE, SIZE, SIZE, SIZE, st.sampled_from([0, 0, 1]), DTYPES, st.booleans(), st.booleans())
def test_products(batch, rows, inner, columns, wrong, dtype, turned, narrow):
    left = torch.ones(rows, inner, dtype=dtype)
    right = torch.ones(inner + wrong, columns, dtype=dtype)
    if turned:
        right = torch.ones(columns, inner + wrong, dtype=dtype).t()
    check(aten.mm.default, left, right)
    added = torch.ones(1 if narrow else columns, dtype=dtype)
    check(aten.addmm.default, added, left, right, beta=2)
    check(aten.addmm.default, torch.ones(rows, columns + wrong, dtype=dtype), left, right)
    many = left.expand(batch, rows, inner), right.expand(batch, *right.shape)
    check(aten.bmm.default, *many)
    check(aten.baddbmm.default, added, *many)


def test_products_of_two_types_are_left_to_torch():
    assert not check(aten.mm.default, torch.ones(2, 3), torch.ones(3, 2).double())
    assert not check(aten.mm.default, torch.ones(2, 3).long(), torch.ones(3, 2).long())


@settings(max_examples=100, deadline=None)
@given(SIZE, SIZE, st.lists(SIZE, max_size=3), st.sampled_from([0, 0, 1]), DTYPES, st.booleans())
def test_batch_norms(batch, channels, sizes, wrong, dtype, bare):
    x = torch.ones(batch, channels, *sizes, dtype=dtype)
    each = torch.ones(channels + wrong, dtype=dtype)
    weights = (None, None) if bare else (each, each)
    check(aten.native_batch_norm.default, x, *weights, each, each, False, 0.1, 1e-5)


@settings(max_examples=100, deadline=None)
@given(SIZE, SIZE, SIZE, SIZE, SIZE, DTYPES, st.booleans(), st.booleans())
def test_attention(batch, heads, steps, others, features, dtype, turned, masked):
    query = torch.ones(batch, heads, steps, features, dtype=dtype)
    if turned:  # as a part of one product for queries, keys and values
        whole = torch.ones(batch, steps, 3 * heads * features, dtype=dtype)
        query = whole.chunk(3, -1)[0].view(batch, steps, heads, features).transpose(1, 2)
    key = torch.ones(batch, heads, others, features, dtype=dtype)
    mask = torch.ones(batch, heads, steps, others, dtype=dtype) if masked else None
    target = aten._scaled_dot_product_flash_attention_for_cpu.default
    check(target, query, key, key, attn_mask=mask)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x):
        shape = (len(x), -1, 3, 4)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


PLAIN = {
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        ),
        torch.ones(2, 3, 8, 8),
    ),
    "attention": (Attention(), torch.ones(2, 5, 12)),
    "recurrence": (nn.LSTM(4, 6, batch_first=True), torch.ones(2, 3, 4)),
    "an encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.ones(2, 3, 8)),
    "channels last": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten()).to(
            memory_format=torch.channels_last
        ),
        torch.ones(2, 3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_the_recording_is_the_same(name):
    model, inputs = PLAIN[name]
    recorder = Recorder(model, has_rule)
    recorder.run(inputs)
    whole, shapes = recorder.graph, trace(model, inputs, known=has_rule)
    assert shapes.by_shapes
    assert shapes.calls == whole.calls
    assert shapes.metas == whole.metas
    assert (shapes.outputs, shapes.inputs) == (whole.outputs, whole.inputs)


class Told(nn.Module):
    """Does one thing or another by what is asked of a result."""

    def __init__(self, ask):
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 3)
        nn.init.ones_(self.first.weight)
        self.ask = ask
        self.register_buffer("seen", torch.zeros(3))
        self.cache = torch.zeros(3)

    def forward(self, x):
        y = self.first(x)
        return self.second(y) if self.ask(self, y) else y


def remembered(model, y):
    model.cache += y[0]
    return float(model.cache.sum()) > 1


ASKS = {
    "a number": lambda model, y: y.sum().item() > 1,
    "a branch": lambda model, y: bool((y > 1).any()),
    "how many": lambda model, y: len(y.nonzero()) > 1,
    "numpy": lambda model, y: y.numpy().sum() > 1,
    "what is printed": lambda model, y: "0.," not in repr(y),
    "a list": lambda model, y: y.flatten().tolist()[0] > 1,
    "a buffer": lambda model, y: model.seen.copy_(y[0]).sum().item() > 1,
    "a cache": remembered,
}


@pytest.mark.parametrize("name", ASKS)
def test_who_asks_for_numbers_gets_them(name):
    """With zeros for the first product, the second would not be made."""
    model = Told(ASKS[name])
    graph = trace(model, torch.ones(1, 2), known=has_rule)
    assert not graph.by_shapes
    assert sum(call.name == "addmm" for call in graph.calls) >= 2
    assert not model.seen.any()
    assert not model.cache.any()


class Swallowing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 3)
        nn.init.ones_(self.first.weight)

    def forward(self, x):
        y = self.first(x)
        try:
            large = y.sum().item() > 1
        except Exception:
            large = False
        return self.second(y) if large else y


def test_a_forward_that_goes_on_after_errors_gets_them_too():
    graph = trace(Swallowing(), torch.ones(1, 2), known=has_rule)
    assert sum(call.name == "addmm" for call in graph.calls) == 2


def test_what_follows_from_inputs_alone_may_be_asked():
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 3)

        def forward(self, x):
            return self.first(x) if x.sum().item() > 1 else x

    graph = trace(Long(), torch.ones(1, 2), known=has_rule)
    assert graph.by_shapes
    assert graph.decisions == [(2.0,)]


def test_an_operator_of_somebody_else_gets_numbers():
    @torch.library.custom_op("prune_tests::largest", mutates_args=())
    def largest(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(int(x.max()))

    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 3)
            nn.init.constant_(self.first.weight, 2.0)
            nn.init.zeros_(self.first.bias)

        def forward(self, x):
            return largest(self.first(x))

    graph = trace(Custom(), torch.ones(1, 2), known=lambda target: True)
    assert graph.metas[graph.outputs[0]].shape == (4,)


def test_a_model_that_does_not_run_is_refused_as_before():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2))
    with pytest.raises(Exception, match="does not run on inputs of these shapes"):
        analysis_of(model, torch.ones(1, 2))


@pytest.mark.parametrize("asks", [False, True])
def test_what_is_remembered_outside_of_the_model_has_numbers(asks):
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Linear(2, 3), nn.Linear(3, 1)
            self.remembered = lru_cache(self.made)

        def made(self, length):
            table = self.table(torch.ones(length, 2))
            table[:, :1].relu_().add_(1)
            return table, table.t()

        def forward(self, x):
            table, turned = self.remembered(len(x))
            y = self.out(x + table) + turned.sum()
            return y * 2 if asks and y.sum().item() > 0 else y

    model, x = Remembering().eval(), torch.ones(2, 3)
    trace(model, x, known=has_rule)
    for one, other in zip(model.remembered(2), model.made(2), strict=True):
        torch.testing.assert_close(one, other)
    assert model.remembered.cache_info().misses == 1
