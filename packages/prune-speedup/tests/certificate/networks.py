"""Small networks with masks on the layers that produce channels, and on nothing that reads them."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.outer = nn.Conv2d(8, 6, 3, padding=1)
        self.deep = nn.Conv2d(6, 6, 3, groups=6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.outer(torch.relu(self.norm(self.inner(x))))
        return self.head(torch.relu(self.deep(x)).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (w(y).unflatten(-1, (4, 2)).transpose(1, 2) for w in self.qkv)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(x)))


class Grouped(nn.Module):
    """Grouped convolutions, group norm, pools, upsampling, and pieces that are joined."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.GroupNorm(3, 12)
        self.wide = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.beside = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(10, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = nn.functional.silu(self.norm(self.stem(x)))
        y = self.up(nn.functional.max_pool2d(self.wide(y), 2))
        y = torch.cat([torch.relu(y), torch.relu(self.beside(x)).roll(1, 2)], 1)
        y = nn.functional.interpolate(self.last(y), scale_factor=0.5, mode="nearest")
        return self.head(nn.functional.layer_norm(y.mean((2, 3)), (4,)))


def case(kind):
    """A model, its example, its masks, and the tensors whose zeros a sum rests on."""
    torch.manual_seed(0)
    if kind == "convolutions":
        model, x = Block().eval(), torch.randn(2, 3, 8, 8)
        model.norm.running_mean.normal_()
        model.norm.weight.data.normal_()
        model.norm.bias.data.normal_()
        cut = {"inner": [1, 4, 5], "norm": [1, 4, 5]}
    elif kind == "groups":
        model, x = Grouped().eval(), torch.randn(2, 3, 8, 8)
        model.norm.weight.data.normal_()
        model.norm.bias.data.normal_()
        cut = {"wide": [1, 5, 9], "up": [0, 3], "beside": [1]}  # of each group of `wide` one
    else:
        model, x = Attention().eval(), torch.randn(2, 5, 8)
        cut = {"up": [0, 3, 7, 11], **{f"qkv.{at}": [2, 3] for at in range(3)}}
    masks = {}
    for name, gone in cut.items():
        masks[name] = {}
        for key, tensor in model.get_submodule(name).named_parameters():
            masks[name][key] = torch.ones_like(tensor)
            axis = int(name == "up" and tensor.ndim == 4)  # outputs come second when transposed
            masks[name][key].index_fill_(axis, torch.tensor(gone), 0)
    producers = {
        "norm.bias",
        "wide.weight",
        "beside.weight",
        "up.weight",
        "up.bias",
        "qkv.2.weight",
        "qkv.2.bias",
    }
    return model, x, masks, producers
