"""What the rules say of numbers, one row per operator, against the operator itself.

Four channels go in: zeros, one number everywhere, numbers that differ from place to place but come
of no input, and an input. A row says what a rule has to make of the first two. Whatever it says of
any of them must be true of the numbers that come out, for other inputs and for other sizes.
"""

import pytest
import torch
import torch.nn.functional as F
from packaging.version import Version
from torch import nn

from prune_speedup.engine.propagate import propagate
from prune_speedup.engine.values import CONSTANT, UNIFORM, UNKNOWN, ZERO
from prune_speedup.torch.masks import zeros_of
from prune_speedup.torch.record.recorder import trace
from prune_speedup.torch.rules import TORCH, has_rule

NAMES = {ZERO: "zero", UNIFORM: "uniform", CONSTANT: "constant", UNKNOWN: "unknown"}


class Channels(nn.Module):
    """Zeros, a number, a slope and an input, channel by channel, through one operator."""

    def __init__(self, operator):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, 1.0]).view(4, 1, 1))
        self.level = nn.Parameter(torch.tensor([0.0, 0.7, 0.0, 0.0]).view(4, 1, 1))
        self.slope = nn.Parameter(torch.tensor([0.0, 0.0, 0.3, 0.0]).view(4, 1, 1))
        self.operator = operator
        if isinstance(operator, nn.Module):
            operator.eval()

    def forward(self, x):
        places = torch.arange(x.shape[-1]) - 1.5
        return self.operator(x * self.scale + self.level + self.slope * places)


def claims(operator, x):
    """What is said of every number that comes out, and of which of the four channels it is."""
    model = Channels(operator).eval()
    graph = trace(model, x, known=has_rule)
    labels = propagate(graph, TORCH).labels
    flow = propagate(graph, TORCH, zeros_of(model, graph, {}), labels).flow
    assert not flow.unknown, flow.unknown
    value = flow.values[graph.outputs[0]]
    own = flow.values[next(v for v, names in graph.tensors.items() if names[0] == "scale")]
    channels = labels.find(own.groups[0].compact().ravel())
    state = torch.full(value.shape, UNKNOWN)
    places = torch.zeros(4, *value.shape, dtype=torch.bool)
    for group in value.groups:
        roots = torch.from_numpy(labels.find(group.compact())).expand(value.shape)
        places |= torch.stack([roots == root for root in channels.tolist()])
        state = torch.minimum(state, torch.from_numpy(group.states()).expand(value.shape))
    return state, places


def outputs(operator, *inputs):
    model = Channels(operator).eval()
    with torch.no_grad():
        return [model(x).to(torch.float64) for x in inputs]


def depthwise(**options):
    torch.manual_seed(0)
    return nn.Conv2d(4, 4, 3, groups=4, **options)


def norm(kind, *args, **options):
    torch.manual_seed(0)
    made = kind(*args, **options)
    for tensor in (*made.parameters(), *made.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return made


def scatter_into(x):
    return torch.zeros_like(x).scatter_add(3, torch.zeros(x.shape, dtype=torch.int64), x)


def written(x, number):
    y = x.clone()
    y[..., 0] = number
    return y


def filled(x, number):
    y = x.clone()
    y[..., 0].fill_(number)
    return y


def zeroed(x):
    y = x.clone()
    y[..., 0].zero_()
    return y


Z, U, C, X = "zero", "uniform", "constant", "unknown"
# Newer torches fill a slice with a number, of which more is known than of a tensor with one.
WRITTEN = C if Version(torch.__version__) >= Version("2.15") else X
TABLE = [
    # element by element
    ("relu", torch.relu, Z, U),
    ("gelu", F.gelu, Z, U),
    ("silu", F.silu, Z, U),
    ("hardswish", F.hardswish, Z, U),
    ("tanh", torch.tanh, Z, U),
    ("leaky_relu", lambda x: F.leaky_relu(x, 0.1), Z, U),
    ("sigmoid", torch.sigmoid, U, U),
    ("exp", torch.exp, U, U),
    ("softplus", F.softplus, U, U),
    ("clamp", lambda x: x.clamp(-1, 1), Z, U),
    ("clamp above zero", lambda x: x.clamp(min=0.1), U, U),
    ("plus one", lambda x: x + 1, U, U),
    ("times two", lambda x: x * 2, Z, U),
    ("squared", torch.square, Z, U),
    ("to the zeroth", lambda x: x**0, U, U),
    ("equals zero", lambda x: x == 0, U, U),
    ("prelu", norm(nn.PReLU), Z, U),
    ("prelu per channel", norm(nn.PReLU, 4), Z, U),
    ("dropout, evaluated", nn.Dropout(0.5), Z, U),
    ("dropout, trained", lambda x: F.dropout(x, 0.5, training=True), Z, X),
    ("masked_fill by constants", lambda x: x.masked_fill(torch.arange(5) > 2, 1.0), C, C),
    ("masked_fill with zero", lambda x: x.masked_fill(torch.arange(5) > 2, 0.0), Z, C),
    ("masked_fill by the input", lambda x: x.masked_fill(x[:, 3:] > 0, 1.0), X, X),
    ("where", lambda x: torch.where(x > 0, x, 2 * x), Z, U),
    ("times an input", lambda x: x * x[:, 3:], Z, X),
    ("plus an input", lambda x: x + x[:, 3:], X, X),
    ("plus places", lambda x: x + torch.arange(5), C, C),
    ("noise", lambda x: x * torch.rand_like(x), Z, X),
    ("copied", lambda x: torch.empty_like(x).copy_(x), Z, X),
    ("of its own kind", torch.zeros_like, Z, Z),
    # along other axes than the channels
    ("sum", lambda x: x.sum((2, 3)), Z, C),
    ("sum of all but channels", lambda x: x.sum((0, 2, 3)), Z, C),
    ("mean", lambda x: x.mean((2, 3)), Z, U),
    ("nansum of an axis", lambda x: x.nansum(3), Z, C),
    ("nansum of axes, kept", lambda x: torch.nansum(x, (2, 3), True), Z, C),
    ("var", lambda x: x.var((2, 3)), Z, U),
    ("std", lambda x: x.std(3, keepdim=True), Z, U),
    ("var_mean", lambda x: torch.var_mean(x, (2, 3))[1], Z, U),
    ("amax", lambda x: x.amax(3), Z, U),
    ("amin", lambda x: x.amin((2, 3)), Z, U),
    ("max and where", lambda x: x.max(3).values, Z, U),
    ("where the max is", lambda x: x.max(3).indices, C, C),
    ("median", lambda x: x.median(3).values, Z, U),
    ("mode", lambda x: x.mode(2).values, Z, U),
    ("mode of the last", lambda x: torch.mode(x)[0], Z, U),
    ("prod", lambda x: x.prod(3), Z, C),
    ("any", lambda x: x.any(3), Z, U),
    ("all", lambda x: x.all(3), Z, U),
    ("argmax", lambda x: x.argmax(3), C, C),
    ("argmin, kept", lambda x: x.argmin(2, keepdim=True), C, C),
    ("logsumexp", lambda x: x.logsumexp((2, 3)), C, C),
    ("norm", lambda x: x.norm(dim=3), Z, C),
    ("norm of order 1", lambda x: torch.linalg.vector_norm(x, 1, (2, 3)), Z, C),
    ("norm of order inf", lambda x: torch.linalg.vector_norm(x, float("inf"), 3), Z, C),
    ("count of non-zeros", lambda x: torch.linalg.vector_norm(x, 0, 3), Z, C),
    ("softmax", lambda x: x.softmax(3), C, C),
    ("log_softmax", lambda x: x.log_softmax(-1), C, C),
    ("cumsum", lambda x: x.cumsum(3), Z, C),
    ("cumprod", lambda x: x.cumprod(2), Z, C),
    ("logcumsumexp", lambda x: x.logcumsumexp(3), C, C),
    ("sort", lambda x: x.sort(3).values, Z, U),
    ("cummax", lambda x: x.cummax(3).values, Z, U),
    ("cummin, places", lambda x: x.cummin(3).indices, C, C),
    ("argsort", lambda x: x.argsort(3), C, C),
    ("topk", lambda x: x.topk(2, 3).values, Z, U),
    ("kthvalue", lambda x: x.kthvalue(2, 3).values, Z, U),
    # normalised
    ("batch norm", norm(nn.BatchNorm2d, 4), U, U),
    ("batch norm without affine", norm(nn.BatchNorm2d, 4, affine=False), U, U),
    ("batch norm of the batch", norm(nn.BatchNorm2d, 4, track_running_stats=False), U, U),
    (
        "batch norm of the batch without affine",
        norm(nn.BatchNorm2d, 4, affine=False, track_running_stats=False),
        *(Z, U),
    ),
    ("instance norm", nn.InstanceNorm2d(4), Z, U),
    ("instance norm with affine", norm(nn.InstanceNorm2d, 4, affine=True), U, U),
    ("instance norm of the past", norm(nn.InstanceNorm2d, 4, track_running_stats=True), U, U),
    ("group norm of zero and number", nn.GroupNorm(2, 4, affine=False), C, C),
    ("group norm, each its own", nn.GroupNorm(4, 4, affine=False), Z, U),
    ("group norm, each its own, affine", norm(nn.GroupNorm, 4, 4), U, U),
    ("group norm of all", nn.GroupNorm(1, 4, affine=False), X, X),
    ("layer norm of a row", lambda x: F.layer_norm(x, (x.shape[-1],)), Z, C),
    ("layer norm of channels", lambda x: F.layer_norm(x.movedim(1, 3), (4,)), X, X),
    ("rms norm of a row", lambda x: F.rms_norm(x, (x.shape[-1],)), Z, U),
    ("rms norm of channels", lambda x: F.rms_norm(x.movedim(1, 3), (4,)), Z, X),
    ("to length one", lambda x: F.normalize(x, dim=1), Z, X),
    ("by hand", lambda x: (x - x.mean((2, 3), True)) / (x.var((2, 3), keepdim=True) + 1), Z, U),
    # convolved and multiplied
    ("depthwise", depthwise(bias=False), Z, C),
    ("depthwise, padded", depthwise(bias=False, padding=1), Z, C),
    ("depthwise with bias", depthwise(), U, C),
    ("depthwise, transposed", nn.ConvTranspose2d(4, 4, 3, groups=4, bias=False), Z, C),
    ("matmul from the right", lambda x: x @ torch.ones(x.shape[-1], 3), Z, C),
    ("matmul with an input", lambda x: x @ x[:, 3:].mT, Z, X),
    ("values of an attention", lambda x: F.scaled_dot_product_attention(x, x, x), Z, X),
    ("einsum", lambda x: torch.einsum("bchw,bhk->bchk", x, x[:, 3]), Z, X),
    ("buckets", lambda x: torch.bucketize(x, torch.arange(3.0)), C, C),
    ("searchsorted", lambda x: torch.searchsorted(torch.arange(3.0), x), C, C),
    ("rrelu", lambda x: F.rrelu(x), Z, X),
    # pooled and resized
    ("max_pool", lambda x: F.max_pool2d(x, 2, 2, 1), Z, U),
    (
        "max_pool and back",
        lambda x: F.max_unpool2d(*F.max_pool2d(x[..., :4, :4], 2, return_indices=True), 2),
        Z,
        C,
    ),
    ("avg_pool", lambda x: F.avg_pool2d(x, 2), Z, U),
    ("avg_pool, padded", lambda x: F.avg_pool2d(x, 2, 2, 1), Z, C),
    (
        "avg_pool by a number",
        lambda x: F.avg_pool2d(x, 3, ceil_mode=True, divisor_override=2),
        Z,
        C,
    ),
    ("adaptive_avg_pool", lambda x: F.adaptive_avg_pool2d(x, 2), Z, U),
    ("adaptive_max_pool", lambda x: F.adaptive_max_pool2d(x, 2), Z, U),
    ("upsampled, nearest", lambda x: F.interpolate(x, scale_factor=2), Z, U),
    ("upsampled, bilinear", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), Z, U),
    ("upsampled, bicubic", lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), Z, U),
    (
        "sampled where the input says",
        lambda x: F.grid_sample(
            x, x[:, 3:].movedim(1, 3).expand(-1, -1, -1, 2), align_corners=False
        ),
        *(Z, X),
    ),
    # padded
    ("padded with zeros", lambda x: F.pad(x, (1, 1)), Z, C),
    ("padded with ones", lambda x: F.pad(x, (1, 1), value=1.0), C, C),
    ("padded with itself", lambda x: F.pad(x, (1, 1, 0, 0), mode="replicate"), Z, U),
    ("padded with its mirror image", lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), Z, U),
    # matrices
    ("inverse", lambda x: torch.linalg.inv(x + 99 * torch.eye(x.shape[-1])), C, C),
    ("determinant", lambda x: torch.linalg.det(x), C, C),
    ("exponential", lambda x: torch.linalg.matrix_exp(0.1 * x), C, C),
    ("Cholesky", lambda x: torch.linalg.cholesky(x @ x.mT + torch.eye(x.shape[-2])), C, C),
    ("singular values", lambda x: torch.linalg.svdvals(x), C, C),
    # moved
    ("transposed", lambda x: x.transpose(1, 3), Z, U),
    ("flattened", lambda x: x.flatten(1), Z, U),
    ("flattened the other way", lambda x: x.movedim(1, 3).flatten(1), Z, U),
    ("rolled", lambda x: x.roll(1, 3), Z, U),
    ("flipped", lambda x: x.flip(3), Z, U),
    ("repeated", lambda x: x.repeat(1, 1, 2, 1), Z, U),
    ("unfolded", lambda x: x.unfold(3, 2, 1), Z, U),
    ("cut", lambda x: x[..., 1:3], Z, U),
    ("picked", lambda x: x[..., 1], Z, U),
    ("joined with itself", lambda x: torch.cat([x, x], 1), Z, C),
    ("joined with its double", lambda x: torch.cat([x, 2 * x], 3), Z, C),
    ("joined with a zero", lambda x: torch.cat([x, torch.zeros(x.shape)], 3), Z, C),
    ("stacked with its double", lambda x: torch.stack([x, 2 * x]), Z, C),
    ("stacked last", lambda x: torch.stack([x, x + 1], -1), C, C),
    ("a triangle", lambda x: x.tril(), Z, C),
    ("a diagonal", lambda x: x.diagonal(dim1=2, dim2=3), Z, U),
    ("a transform", lambda x: torch.fft.rfft(x).abs(), Z, C),
    ("written to in part", lambda x: written(x, 1.0), WRITTEN, WRITTEN),
    ("written to in part with zero", lambda x: written(x, 0.0), WRITTEN, WRITTEN),
    ("filled in part", lambda x: filled(x, 1.0), C, C),
    ("zeroed in part", lambda x: zeroed(x), Z, C),
    # looked up and dealt out
    ("places", lambda x: x[..., torch.arange(2)], Z, C),
    ("places from elsewhere", lambda x: x[..., torch.tensor([0, 2])], Z, X),
    ("places of the input", lambda x: x[..., (x[0, 3, 0] > 0).long()], Z, X),
    ("index_select", lambda x: x.index_select(3, torch.arange(2)), Z, C),
    ("gathered", lambda x: x.gather(3, torch.zeros(x.shape, dtype=torch.int64)), Z, C),
    ("scattered", scatter_into, Z, C),
    ("added to rows", lambda x: x.index_add(3, torch.arange(2), x[..., :2]), Z, C),
]


@pytest.mark.parametrize(
    ("operator", "zero", "uniform"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_is_said_of_numbers_is_true_and_not_too_little(operator, zero, uniform):
    torch.manual_seed(0)
    x, other, larger = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5), torch.randn(3, 4, 7, 7)
    state, places = claims(operator, x)
    torch.manual_seed(1)
    first, second = outputs(operator, x, other)

    assert not first[state == ZERO].any()
    assert not second[state == ZERO].any()
    steady = state <= CONSTANT
    torch.testing.assert_close(first[steady], second[steady])
    for channel in range(4):
        here = places[channel] & (state == UNIFORM)
        if here.any():
            number = first[here][0]
            torch.testing.assert_close(first[here], number.expand(int(here.sum())))
            state_there, places_there = claims(operator, larger)
            (there,) = outputs(operator, larger)
            same = there[places_there[channel] & (state_there == UNIFORM)]
            torch.testing.assert_close(same, number.expand(len(same)))

    assert [NAMES[int(state[places[at]].max())] for at in (0, 1)] == [zero, uniform]
