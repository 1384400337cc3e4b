"""Small models, each built around one thing that makes structured pruning difficult."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize


class Classifier(nn.Module):
    """Whatever makes features of an image, and a head behind it."""

    def __init__(self, features, width, classes=5):
        super().__init__()
        self.features, self.head = features, nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def conv(width_in, width_out, kernel=3, **options):
    """A convolution, its norm and what comes behind."""
    padding = options.pop("padding", kernel // 2)
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel, padding=padding, bias=False, **options),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )


# -- moving channels about -----------------------------------------------------------------------


class Shuffle(nn.Module):
    def __init__(self, width=32, groups=2):
        super().__init__()
        self.stem = conv(3, width)
        self.left = conv(width // 2, width // 2, groups=width // 2)
        self.right = conv(width // 2, width // 2, 1)
        self.groups, self.out = groups, conv(width, 16, 1)

    def forward(self, x):
        kept, worked = self.stem(x).chunk(2, 1)
        y = torch.cat([kept, self.right(self.left(worked))], 1)
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.out(y)


class TorchShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 32), conv(32, 32, groups=4)
        self.shuffle, self.c = nn.ChannelShuffle(4), conv(32, 16, groups=4)

    def forward(self, x):
        return self.c(self.shuffle(self.b(self.a(x))))


class UnevenSplit(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 40)
        self.small, self.middle, self.large = conv(8, 8), conv(12, 12), conv(20, 16)

    def forward(self, x):
        a, b, c = self.stem(x).split([8, 12, 20], 1)
        a = self.small(a)
        b = self.middle(b)
        return torch.cat([self.large(c), b, a], 1)


class ConcatOfConcats(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(19, 16), conv(35, 16)
        self.norm, self.out = nn.BatchNorm2d(54), conv(54, 24, 1)

    def forward(self, x):
        one = torch.cat([x, self.a(x)], 1)
        two = torch.cat([one, self.b(one)], 1)
        three = torch.cat([self.c(two), two, x], 1)
        return self.out(F.relu(self.norm(three)))


class Focus(nn.Module):
    """Space folded into channels by slices."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = conv(3, 12), conv(48, 32, 1)
        self.last = conv(32, 16)

    def forward(self, x):
        y = self.stem(x)
        y = [y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]]
        return self.last(self.out(torch.cat(y, 1)))


class PixelShuffles(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.wide = conv(3, 16), conv(64, 64)
        self.up, self.last = conv(64, 64), conv(16, 16)

    def forward(self, x):
        y = self.wide(F.pixel_unshuffle(self.down(x), 2))
        return self.last(F.pixel_shuffle(self.up(y), 2))


class Windows(nn.Module):
    """Space cut into shifted windows and put together again."""

    def __init__(self, width=32, heads=4, window=4):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 1), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, window**2, window**2))
        self.heads, self.window = heads, window
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        n = self.window
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(b, h // n, n, w // n, n, c).transpose(2, 3).reshape(-1, n * n, c)
        q, k, v = (
            self.qkv(y).reshape(-1, n * n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        )
        scores = q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5 + self.bias
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, n * n, c))
        y = y.view(b, h // n, w // n, n, n, c).transpose(2, 3).reshape(b, h, w, c)
        x = x + torch.roll(y, (2, 2), (1, 2))
        return (x + self.mlp(x)).permute(0, 3, 1, 2)


# -- groups ----------------------------------------------------------------------------------------


class DepthwiseThenGrouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = conv(3, 32), conv(32, 64, groups=32)
        self.grouped, self.point = conv(64, 32, groups=4), conv(32, 32, 1)
        self.last = conv(32, 16, groups=2)

    def forward(self, x):
        return self.last(self.point(self.grouped(self.depthwise(self.stem(x)))))


class GroupNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 16, 1)
        self.norms = nn.ModuleList(
            [nn.GroupNorm(8, 32), nn.GroupNorm(1, 32), nn.InstanceNorm2d(16)]
        )

    def forward(self, x):
        for layer, norm in zip((self.a, self.b, self.c), self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        return x


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.expand, self.deep = conv(3, 16), conv(16, 64, 1), conv(64, 64, groups=64)
        self.squeeze, self.excite = nn.Conv2d(64, 16, 1), nn.Conv2d(16, 64, 1)
        self.project, self.norm = nn.Conv2d(64, 16, 1, bias=False), nn.BatchNorm2d(16)

    def forward(self, x):
        x = self.stem(x)
        y = self.deep(self.expand(x))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))
        return x + self.norm(self.project(y * torch.sigmoid(gate)))


class ChannelAttention(nn.Module):
    """A gate by a one-dimensional convolution over the channels, which must then all stay."""

    def __init__(self):
        super().__init__()
        self.stem, self.slide = conv(3, 16), nn.Conv1d(1, 1, 3, padding=1)
        self.wide, self.last = conv(16, 64), conv(64, 16)

    def forward(self, x):
        y = self.stem(x)
        gate = self.slide(y.mean((2, 3)).unsqueeze(1)).sigmoid()
        return self.last(self.wide(y * gate.view(y.shape[0], -1, 1, 1)))


class GatedUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 32, 3), nn.GLU(1)
        self.up, self.down = nn.Linear(16, 96), nn.Linear(48, 16)
        self.left, self.right, self.out = nn.Linear(16, 40), nn.Linear(16, 40), nn.Linear(40, 16)

    def forward(self, x):
        x = self.gate(self.stem(x)).permute(0, 2, 3, 1)
        left, right = self.up(x).chunk(2, -1)
        x = x + self.down(F.silu(left) * right)
        x = x + self.out(self.left(x) * torch.tanh(self.right(x)))
        return x.permute(0, 3, 1, 2)


class SelectiveKernel(nn.Module):
    """Branches stacked, weighed by a softmax across the branches, and summed."""

    def __init__(self, width=32):
        super().__init__()
        self.stem = conv(3, width)
        self.branches = nn.ModuleList([conv(width, width, k) for k in (1, 3)])
        self.squeeze, self.excite = conv(width, 8, 1), nn.Conv2d(8, 2 * width, 1)
        self.out = conv(width, 16)

    def forward(self, x):
        x = self.stem(x)
        y = torch.stack([branch(x) for branch in self.branches], 1)
        weights = self.excite(self.squeeze(y.sum(1).mean((2, 3), keepdim=True)))
        weights = weights.view(x.shape[0], 2, x.shape[1], 1, 1).softmax(1)
        return self.out((y * weights).sum(1))


# -- what makes a weight ---------------------------------------------------------------------------


class StandardisedConv(nn.Conv2d):
    """A convolution whose filters have mean zero and variance one."""

    def forward(self, x):
        weight = self.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        spread = weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (weight - mean) / torch.sqrt(spread + 1e-6)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class WeightStandardisation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            StandardisedConv(3, 32, 3),
            StandardisedConv(32, 32, 3),
            StandardisedConv(32, 16, 1),
        )

    def forward(self, x):
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))


class GainedConv(nn.Conv2d):
    """A convolution whose filters are normalised by a batch norm and given a gain."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        gain = (self.gain * self.scale).view(-1)
        weight = F.batch_norm(flat, None, None, weight=gain, training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


class GainedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            GainedConv(3, 32, 3),
            GainedConv(32, 32, 3),
            GainedConv(32, 16, 1),
        )

    def forward(self, x):
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))


class WeightNorms(nn.Module):
    def __init__(self):
        super().__init__()
        norm = parametrizations.weight_norm
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 16, 1)
        self.a, self.b, self.c = norm(self.a), norm(self.b), norm(self.c)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class SpectralNorms(nn.Module):
    def __init__(self):
        super().__init__()
        norm = parametrizations.spectral_norm
        self.a, self.b = norm(nn.Conv2d(3, 32, 3)), norm(nn.Conv2d(32, 32, 3))
        self.c = norm(nn.Conv2d(32, 16, 1))

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Scaled(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(count, 1, 1, 1) + 0.5)

    def forward(self, weight):
        return weight * self.scale


class OwnParametrisation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3)
        parametrize.register_parametrization(self.a, "weight", Scaled(32))
        parametrize.register_parametrization(self.b, "weight", Scaled(16))

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


class SharedBlocks(nn.Module):
    """One block used three times, another twice at other widths of the same stream."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared = conv(3, 32), conv(32, 32)
        self.other = nn.Sequential(conv(32, 48, 1), conv(48, 32, 1))

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = x + self.shared(x)
        return self.other(self.other(x))


class TiedEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(40, 32), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        x = self.table(tokens)
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))


class Hypernetwork(nn.Module):
    """The filters are made by another layer from what it sees."""

    def __init__(self):
        super().__init__()
        self.stem, self.see = conv(3, 16), nn.Linear(16, 16 * 9)
        self.out, self.wide = conv(16, 64), conv(64, 16)

    def forward(self, x):
        x = self.stem(x)
        filters = self.see(x.mean((0, 2, 3))).view(16, 1, 3, 3)
        return self.wide(self.out(F.conv2d(x, filters, padding=1, groups=16)))


# -- sizes in the source ---------------------------------------------------------------------------


class LiteralViews(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a = conv(3, 16, padding=0), nn.Linear(16 * 36, 64)
        self.b, self.head = nn.Linear(64, 80), nn.Linear(40, 5)

    def forward(self, x):
        x = F.max_pool2d(self.stem(x), 1).view(-1, 576)
        left, right = self.b(F.relu(self.a(x))).split(40, 1)
        return self.head(left.reshape(len(x), 40) * right.sigmoid())


class Einsums(nn.Module):
    def __init__(self, width=32, heads=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.q, self.k, self.v = (
            nn.Parameter(torch.randn(width, heads, width // heads) / 6) for _ in range(3)
        )
        self.o = nn.Parameter(torch.randn(heads, width // heads, width) / 6)
        self.mlp = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = (torch.einsum("btc,chd->bhtd", x, each) for each in (self.q, self.k, self.v))
        scores = torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5
        y = torch.einsum("bhts,bhsd->bthd", scores.softmax(-1), v)
        x = x + torch.einsum("bthd,hdc->btc", y, self.o)
        return (x + self.mlp(x)).transpose(1, 2).unflatten(2, (8, 8))


class FusedHeads(nn.Module):
    """GPT-2's fused projection, with the sizes kept as attributes."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.width, self.heads, self.head_dim = width, heads, width // heads
        self.table, self.place = nn.Embedding(40, width), nn.Embedding(16, width)
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out, self.head = nn.Linear(width, width), nn.Linear(width, 40)

    def forward(self, tokens):
        b, t = tokens.shape
        x = self.table(tokens) + self.place(torch.arange(t))
        q, k, v = (
            each.view(b, t, self.heads, self.head_dim).transpose(1, 2)
            for each in self.qkv(self.norm(x)).split(self.width, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, t, self.width)))


class Llama(nn.Module):
    """Grouped queries, rotary positions, gated units and norms by root mean square."""

    def __init__(self, width=32, heads=8, kv_heads=4, layers=2):
        super().__init__()
        self.table, self.head = nn.Embedding(40, width), nn.Linear(width, 40, bias=False)
        self.layers = nn.ModuleList(LlamaLayer(width, heads, kv_heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width)

    def forward(self, tokens):
        x = self.table(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class LlamaLayer(nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, 2 * width // heads
        self.q = nn.Linear(width, heads * self.head_dim, bias=False)
        self.k = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.o = nn.Linear(heads * self.head_dim, width, bias=False)
        self.gate, self.up = nn.Linear(width, 88, bias=False), nn.Linear(width, 88, bias=False)
        self.down = nn.Linear(88, width, bias=False)
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        steps = torch.arange(0, self.head_dim, 2) / self.head_dim
        self.register_buffer("frequencies", 100.0**-steps)

    def turned(self, x):
        angles = torch.arange(x.shape[2]).to(x)[:, None] * self.frequencies
        cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    def forward(self, x):
        b, t, _ = x.shape
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(b, t, -1, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        repeat = self.heads // self.kv_heads
        k, v = (
            each[:, :, None].expand(-1, -1, repeat, -1, -1).reshape(b, self.heads, t, self.head_dim)
            for each in (self.turned(k), v)
        )
        y = F.scaled_dot_product_attention(self.turned(q), k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Experts(nn.Module):
    """A mixture of experts: each token goes through the two that a router likes best."""

    def __init__(self, width=16, inner=48, count=4):
        super().__init__()
        self.table, self.head = nn.Embedding(40, width), nn.Linear(width, 40)
        self.router = nn.Linear(width, count)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
            for _ in range(count)
        )

    def forward(self, tokens):
        x = self.table(tokens).flatten(0, 1)
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == number)
            y.index_add_(0, rows, expert(x[rows]) * weights[rows, slot, None])
        return self.head(x + y).view(*tokens.shape, -1)


class CountedExperts(nn.Module):
    """Only the experts that are hit run, each on its own tokens; one of them on no token."""

    def __init__(self, width=16, inner=48, count=4):
        super().__init__()
        self.table, self.head = nn.Embedding(40, width), nn.Linear(width, 40)
        self.router = nn.Linear(width, count)
        with torch.no_grad():
            self.router.bias[0] -= 1e3
        self.up = nn.Parameter(torch.randn(count, width, 2 * inner) / 4)
        self.down = nn.ModuleList(nn.Linear(inner, width) for _ in range(count))

    def forward(self, tokens):
        x = self.table(tokens).flatten(0, 1)
        chosen = F.one_hot(self.router(x).argmax(-1), len(self.down)).T
        y = torch.zeros_like(x)
        for number in chosen.sum(-1).nonzero()[:, 0]:
            (rows,) = torch.where(chosen[number])
            both = x[rows] @ self.up[number]
            y.index_add_(0, rows, self.down[number](both[..., ::2] * both[..., 1::2].sigmoid()))
        return self.head(x + y).view(*tokens.shape, -1)


class CachedTable(nn.Module):
    """Heads with a bias for each distance, which is looked up once and then kept."""

    def __init__(self, width=32, heads=2, places=16):
        super().__init__()
        self.heads, self.table = heads, nn.Parameter(torch.randn(heads, places))
        self.stem, self.qkv = nn.Conv2d(3, width, 2, 2), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        steps = torch.arange(places)
        self.register_buffer("distance", (steps[:, None] - steps).abs(), persistent=False)
        self.kept = {}

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        b, t, _ = x.shape
        if "bias" not in self.kept:
            self.kept["bias"] = self.table[:, self.distance]
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = (q.contiguous() @ k.transpose(-1, -2) / 4 + self.kept["bias"]).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).contiguous().reshape(b, t, -1))
        return x.transpose(1, 2).unflatten(2, (4, 4))


class TurnedHalves(nn.Module):
    """The width of a head is cut by sizes in the source, between axes that lose indices."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads, self.table = heads, nn.Embedding(40, width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.o, self.head = nn.Linear(width, width), nn.Linear(width, 40)

    def forward(self, tokens):
        x = self.table(tokens)
        b, t, _ = x.shape
        q, k, v = (each(x).view(b, t, self.heads, 8) for each in (self.q, self.k, self.v))
        left, right = torch.split(q, [4, 4], dim=-1)
        q = torch.cat([right, -left], -1)
        y = F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v)))
        return self.head(x + self.o(y.transpose(1, 2).reshape(b, t, -1)))


class PooledTokens(nn.Module):
    """Numbers written to places, then a window that slides along the tokens only."""

    def __init__(self, width=32):
        super().__init__()
        self.table, self.blank = nn.Embedding(40, width), nn.Parameter(torch.randn(width))
        self.up, self.down = nn.Linear(width, 96), nn.Linear(96, width)
        self.head = nn.Linear(width, 5)

    def forward(self, tokens):
        x = self.table(tokens).clone()
        x[tokens % 3 == 0] = self.blank
        x = F.avg_pool2d(x[:, None], (2, 1))[:, 0]
        return self.head(x + self.down(F.gelu(self.up(x))))


# -- shapes of forwards ----------------------------------------------------------------------------


class NestedOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv(3, 32), conv(32, 32), conv(32, 16)
        self.boxes, self.classes = nn.Conv2d(16, 4, 1), nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.a(x)
        found = {"boxes": self.boxes(self.b(y))}
        return {"scores": {"all": self.classes(y.mean((2, 3)))}, "found": [found, (x.mean(),)]}


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.middle = conv(3, 16), conv(16, 32), conv(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.merge2, self.merge1 = conv(64, 32), conv(32, 16)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.middle(F.max_pool2d(two, 2))
        x = self.merge2(torch.cat([self.up2(x), two], 1))
        return self.out(self.merge1(torch.cat([self.up1(x), one], 1)))


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 1), conv(32, 16)

    def forward(self, x):
        x = F.relu_(self.a(x))
        y = self.b(x)
        y += x
        y.mul_(0.5).clamp_(-1)
        return self.c(y)


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv(3, 32), conv(32, 32), conv(32, 16)

    def forward(self, x):
        x = self.stem(x)
        while x.abs().mean() > 10:
            x = x / 2
        return self.b(self.a(x) if x.sum() > 0 else x)


class ResNet(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stem = conv(3, width)
        self.one, self.two = ResBlock(width, width), ResBlock(width, 2 * width, 2)
        self.three = ResBlock(2 * width, 2 * width)

    def forward(self, x):
        return self.three(self.two(self.one(self.stem(x))))


class ResBlock(nn.Module):
    def __init__(self, width, out, stride=1):
        super().__init__()
        self.a = conv(width, out, stride=stride)
        self.b, self.norm = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(width, out, 1, stride) if width != out else nn.Identity()

    def forward(self, x):
        return F.relu(self.norm(self.b(self.a(x))) + self.skip(x))


class Mixer(nn.Module):
    """Layers that mix along the positions take turns with layers along the channels."""

    def __init__(self, width=32, places=16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.tokens = nn.Sequential(nn.Linear(places, 64), nn.GELU(), nn.Linear(64, places))
        self.channels = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norms[1](x))
        return x.transpose(1, 2).unflatten(2, (4, 4))


class ChannelsLast(nn.Module):
    """ConvNeXt's block: a norm over the last axis and a scale of the whole branch."""

    def __init__(self, width=32):
        super().__init__()
        self.stem, self.deep = (
            nn.Conv2d(3, width, 2, 2),
            nn.Conv2d(width, width, 3, 1, 1, groups=width),
        )
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 96),
            nn.Linear(96, width),
        )
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))) * self.scale
        return x + y.permute(0, 3, 1, 2)


def _image():
    return torch.rand(2, 3, 8, 8)


def _tokens():
    return torch.randint(0, 40, (2, 6))


_WITH_HEAD = {
    "channel-shuffle": (Shuffle, 16),
    "torch-channel-shuffle": (TorchShuffle, 16),
    "uneven-split": (UnevenSplit, 36),
    "concat-of-concats": (ConcatOfConcats, 24),
    "focus": (Focus, 16),
    "pixel-shuffle": (PixelShuffles, 16),
    "shifted-windows": (Windows, 32),
    "depthwise-then-grouped": (DepthwiseThenGrouped, 16),
    "group-norms": (GroupNorms, 16),
    "squeeze-excite": (SqueezeExcite, 16),
    "channel-attention": (ChannelAttention, 16),
    "gated-units": (GatedUnits, 16),
    "selective-kernel": (SelectiveKernel, 16),
    "weight-standardisation": (WeightStandardisation, 16),
    "weights-with-gain": (GainedWeights, 16),
    "weight-norm": (WeightNorms, 16),
    "spectral-norm": (SpectralNorms, 16),
    "own-parametrisation": (OwnParametrisation, 16),
    "shared-blocks": (SharedBlocks, 32),
    "hypernetwork": (Hypernetwork, 16),
    "einsum": (Einsums, 32),
    "in-place": (InPlace, 16),
    "data-dependent": (DataDependent, 16),
    "resnet": (ResNet, 32),
    "mixer": (Mixer, 32),
    "channels-last": (ChannelsLast, 32),
    "cached-table": (CachedTable, 32),
}
_WHOLE = {
    "literal-views": (LiteralViews, _image),
    "tied-embedding": (TiedEmbedding, _tokens),
    "fused-heads": (FusedHeads, _tokens),
    "llama": (Llama, _tokens),
    "mixture-of-experts": (Experts, _tokens),
    "counted-experts": (CountedExperts, _tokens),
    "turned-halves": (TurnedHalves, _tokens),
    "pooled-tokens": (PooledTokens, _tokens),
    "nested-outputs": (NestedOutputs, _image),
    "u-net": (UNet, _image),
}


def names(every=False):
    return [*_WITH_HEAD, *_WHOLE]


def build(name):
    """A model and example inputs for it."""
    if name in _WITH_HEAD:
        features, width = _WITH_HEAD[name]
        return Classifier(features(), width), _image()
    make, inputs = _WHOLE[name]
    return make(), inputs()
