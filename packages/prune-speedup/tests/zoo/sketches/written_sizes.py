"""Models that have written sizes down in the source of their forward."""

import torch
import torch.nn.functional as F
from torch import nn

from sketches.layers import conv


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
