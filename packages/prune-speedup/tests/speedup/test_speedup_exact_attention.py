"""Removing units of attention equals masking them: heads, widths, fused projections."""

import copy

import pytest
import torch
import torch.nn.functional as F
from exactness import check, choose, masked_like
from torch import nn

from prune_core.speedup import shrink
from prune_speedup.torch import units


class Heads(nn.Module):
    """Attention written by hand, with the sizes as attributes or read off another tensor."""

    def __init__(self, width=16, heads=4, kv_heads=4, rotary=False):
        super().__init__()
        self.num_heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, kv_heads * self.head_dim)
        self.v = nn.Linear(width, kv_heads * self.head_dim)
        self.o = nn.Linear(width, width)
        self.rotary = rotary
        self.register_buffer("frequencies", torch.rand(self.head_dim // 2))

    def turn(self, x):
        if not self.rotary:
            return x
        angles = torch.arange(x.shape[-2]).to(x)[:, None] * self.frequencies
        angles = torch.cat([angles, angles], -1)
        half = self.head_dim // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, x):
        b, t, c = x.shape
        y = self.norm(x)
        q = self.turn(self.q(y).view(b, t, self.num_heads, self.head_dim).transpose(1, 2))
        k = self.turn(self.k(y).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2))
        v = self.v(y).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        repeat = self.num_heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = ((q @ k.transpose(-1, -2)) / self.head_dim**0.5).softmax(-1) @ v
        return x + self.o(y.transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    """An embedding, one attention, and the width around it kept by an output."""

    def __init__(self, **options):
        super().__init__()
        self.table = nn.Embedding(11, 16)
        self.attention = Heads(**options)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, tokens):
        x = self.attention(self.table(tokens))
        return x + self.down(F.gelu(self.up(x)))


@pytest.mark.parametrize(
    "options", [{}, {"rotary": True}, {"kv_heads": 2}, {"kv_heads": 2, "rotary": True}]
)
def test_whole_heads_of_an_attention(options):
    report = check(
        Block(**options), torch.arange(6).view(2, 3), others=[(torch.ones(3, 5).long(),)]
    )
    assert ("attention", "num_heads", 4, 2) in report.attributes


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_torch_attention_loses_heads_under_masks_of_booleans(need_weights, batch_first):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.MultiheadAttention(16, 4, batch_first=batch_first)

        def forward(self, x, padding, ahead):
            options = {"key_padding_mask": padding, "need_weights": need_weights}
            return self.layer(x, x, x, attn_mask=ahead, **options)[0]

    x, last = torch.rand(4, 4, 16, dtype=torch.float64), torch.arange(4) > 2
    ahead = torch.ones(4, 4, dtype=torch.bool).triu(1)
    check(Padded(), x, last.expand(4, 4), ahead)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_torch_attention_loses_heads(need_weights, batch_first):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.MultiheadAttention(16, 4, batch_first=batch_first)

        def forward(self, x):
            mask = torch.zeros(4, 4).to(x)
            return self.layer(x, x, x, attn_mask=mask, need_weights=need_weights)[0]

    inputs = torch.rand(4, 4, 16, dtype=torch.float64)
    check(Attention(), inputs, others=[(torch.rand(4, 4, 16, dtype=torch.float64),)])


@pytest.mark.parametrize("apart", [False, True])
def test_torch_attention_reads_another_width_than_it_makes(apart):
    class Attended(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.other = nn.Linear(3, 16), nn.Linear(3, 16)
            self.layer = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x):
            query = self.first(x)
            key = self.other(x) if apart else query
            return self.layer(query, key, key)[0]

    x, model = torch.rand(2, 5, 3, dtype=torch.float64), Attended().double().eval()
    read = next(group for group in units(model, x).groups if group.name == "first.weight[0]")
    chosen = [units(model, x).unit(label) for label in read.labels[:6]]
    masked = masked_like(model, chosen)
    shrink(model, x, units=chosen)
    assert (model.layer.in_proj_weight.shape[1], model.layer.embed_dim) == (10, 16)
    torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"kdim": 3, "vdim": 3}])
def test_an_only_head_becomes_narrower(options):
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.need_weights = True
            self.first = nn.Linear(3, 16)
            self.layer = nn.MultiheadAttention(16, 1, batch_first=True, **options)

        def forward(self, x):
            query = self.first(x)
            key = x if options else query
            return query, self.layer(query, key, key, need_weights=self.need_weights)[0]

    x, model = torch.rand(2, 5, 3, dtype=torch.float64), Alone().double().eval()
    chosen = choose(units(model, x), 0.5, 0)
    masked = masked_like(model, chosen)
    shrink(model, x, units=chosen)
    assert model.layer.out_proj.in_features == 8
    for model.need_weights in (True, False):
        torch.testing.assert_close(model(x), masked(x), rtol=1e-9, atol=1e-9)


class FusedAttention(nn.Module):
    """Queries, keys and values from one projection, taken apart by slices of a written-down size.

    Positions turn all of a head, so that nothing is left of it to be passed by: `x[..., 4:]` of
    four is without any index, and says nothing of the heads.
    """

    def __init__(self, heads=8, shared=4, size=4):
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, size
        self.qkv = nn.Linear(16, (heads + 2 * shared) * size)
        self.out = nn.Linear(heads * size, 16)

    def forward(self, x):
        batch, length, _ = x.shape
        turn = torch.arange(length * self.size, dtype=x.dtype).view(length, self.size)

        def turned(y):
            rotated, passed = y[..., : self.size], y[..., self.size :]
            return torch.cat([rotated * turn.cos() + rotated.flip(-1) * turn.sin(), passed], -1)

        qkv, wide, narrow = self.qkv(x), self.heads * self.size, self.shared * self.size
        pieces = qkv[..., :wide], qkv[..., wide : wide + narrow], qkv[..., wide + narrow :]
        q, k, v = (y.view(batch, length, -1, self.size).transpose(1, 2) for y in pieces)
        q, k = turned(q), turned(k)
        k, v = (y.repeat_interleave(self.heads // self.shared, 1) for y in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


@pytest.mark.parametrize("shared", [8, 4, 2])
def test_heads_of_a_fused_projection_that_is_taken_apart_by_slices(shared):
    model, x = FusedAttention(shared=shared), torch.rand(2, 5, 16, dtype=torch.float64)
    found = units(copy.deepcopy(model).double(), x)
    heads = next(group for group in found.groups if group.name == "qkv.weight[0]")
    assert len(heads) == shared
    slices = found.unit(heads.labels[0]).slices
    assert len(slices["qkv.weight"][0]) == (8 // shared + 2) * 4
    assert len(slices["out.weight"][1]) == 8 // shared * 4
    check(model, x, others=[(x[:1, :3],)])
