"""Mixtures of experts as people write them."""

import torch
from torch import nn
from torch.nn import functional as F


class Expert(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Looped(nn.Module):
    """Each expert gets the tokens that are sent to it, one expert after the other."""

    def __init__(self, width=6, inner=10, experts=5, top_k=2):
        super().__init__()
        self.n, self.k = experts, top_k
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(Expert(width, inner) for _ in range(experts))

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.router(flat).softmax(-1).topk(self.k, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for number in range(self.n):
            token, slot = (chosen == number).nonzero(as_tuple=True)
            out.index_add_(0, token, self.experts[number](flat[token]) * weights[token, slot, None])
        return out.reshape(x.shape)


class Soft(nn.Module):
    """Every token goes to every expert."""

    def __init__(self, width=6, inner=10, experts=4):
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, inner) for _ in range(experts))

    def forward(self, x):
        gates = self.router(x).softmax(-1)
        outputs = torch.stack([expert(x) for expert in self.experts], -1)
        return (outputs * gates.unsqueeze(-2)).sum(-1)


class Fused(nn.Module):
    """The weights of all experts in one tensor, picked by number; a bias helps to choose."""

    def __init__(self, width=6, inner=10, experts=6, top_k=2):
        super().__init__()
        self.num_experts, self.top_k = experts, top_k
        self.router = nn.Parameter(torch.randn(width, experts))
        self.balance = nn.Buffer(torch.linspace(-0.2, 0.3, experts))
        self.up = nn.Parameter(torch.randn(experts, width, inner) / width**0.5)
        self.down = nn.Parameter(torch.randn(experts, inner, width) / inner**0.5)

    def forward(self, x):
        scores = torch.sigmoid(x @ self.router)
        chosen = (scores + self.balance).topk(self.top_k, dim=-1).indices
        weights = scores.gather(-1, chosen)
        inner = F.silu(torch.einsum("...d,...kdf->...kf", x, self.up[chosen]))
        outputs = torch.einsum("...kf,...kfd->...kd", inner, self.down[chosen])
        return (outputs * weights[..., None]).sum(-2)


class Model(nn.Module):
    """A mixture between other layers."""

    def __init__(self, *mixtures, width=6):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.mixtures = nn.ModuleList(mixtures)
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        x = self.first(x)
        for mixture in self.mixtures:
            x = x + mixture(x)
        return self.last(x)
