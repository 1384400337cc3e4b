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


def case(kind):
    """A model, its example, its masks, and the tensors whose zeros a sum rests on."""
    torch.manual_seed(0)
    if kind == "convolutions":
        model, x = Block().eval(), torch.randn(2, 3, 8, 8)
        model.norm.running_mean.normal_()
        model.norm.weight.data.normal_()
        model.norm.bias.data.normal_()
        cut = {"inner": [1, 4, 5], "norm": [1, 4, 5]}
    else:
        model, x = Attention().eval(), torch.randn(2, 5, 8)
        cut = {"up": [0, 3, 7, 11], **{f"qkv.{at}": [2, 3] for at in range(3)}}
    masks = {}
    for name, gone in cut.items():
        masks[name] = {}
        for key, tensor in model.get_submodule(name).named_parameters():
            masks[name][key] = torch.ones_like(tensor)
            masks[name][key][gone] = 0
    producers = {"norm.bias", "up.weight", "up.bias", "qkv.2.weight", "qkv.2.bias"}
    return model, x, masks, producers
