"""Models with residual branches of every kind, small enough to be looked at."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width, heads=2):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in self.qkv(x).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(mixed), None


class Layer(nn.Module):
    """A layer of a transformer, its norms before the branches."""

    def __init__(self, width, index=0):
        super().__init__()
        self.index = index
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x))[0])
        return x + self.dropout(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    def __init__(self, layers=4, width=12):
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.position = nn.Embedding(32, width)
        self.layers = nn.ModuleList(Layer(width, index) for index in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 20)

    def forward(self, tokens: Tensor, loss: bool = False):
        x = self.embed(tokens) + self.position(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        if not loss:
            return logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


class Residual(nn.Module):
    """A block of a ResNet, with a shortcut where shapes change."""

    def __init__(self, before, after, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.layer1 = nn.Sequential(Residual(6, 6), Residual(6, 6))
        self.layer2 = nn.Sequential(Residual(6, 10, 2), Residual(10, 10))
        self.fc = nn.Linear(10, 5)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class Modulated(nn.Module):
    """A block of a diffusion transformer: what it adds is scaled by the time step."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width, elementwise_affine=False), Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 4 * width)

    def forward(self, x, time):
        shift, scale, gate1, gate2 = self.modulation(F.silu(time))[:, None].chunk(4, -1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale) + shift)[0]
        return x + gate2 * self.mlp(self.norm(x))


class DiT(nn.Module):
    def __init__(self, depth=3, width=8):
        super().__init__()
        self.patch, self.time = nn.Conv2d(4, width, 2, 2), nn.Linear(1, width)
        self.blocks = nn.ModuleList(Modulated(width) for _ in range(depth))
        self.out = nn.Linear(width, 16)

    def forward(self, latents, step):
        x = self.patch(latents).flatten(2).transpose(1, 2)
        time = self.time(step[:, None])
        for block in self.blocks:
            x = block(x, time)
        return self.out(x)


class Shared(nn.Module):
    """One layer that runs three times."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = Layer(12), nn.Linear(12, 3)

    def forward(self, x):
        for _ in range(3):
            x = self.layer(x)
        return self.head(x)


class Indexed(nn.Module):
    """Two lists that are read side by side, so that neither can lose an entry alone."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer(12) for _ in range(3))
        self.adapters = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))

    def forward(self, x):
        for index in range(3):
            x = self.adapters[index](self.layers[index](x))
        return x
