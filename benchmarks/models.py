"""Networks that benchmarks need and torch does not bring."""

import torch
from torch import Tensor, nn

__all__ = ["Decoder", "ResNet18", "ViTTiny", "linear_stack", "resnet50_convolutions"]


def resnet50_convolutions() -> nn.ModuleList:
    """Return the 53 convolutions of ResNet-50, by their shapes alone."""
    layers = [nn.Conv2d(3, 64, 7, bias=False)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            layers += [
                nn.Conv2d(inputs, width, 1, bias=False),
                nn.Conv2d(width, width, 3, bias=False),
                nn.Conv2d(width, 4 * width, 1, bias=False),
            ]
            if block == 0:
                layers.append(nn.Conv2d(inputs, 4 * width, 1, bias=False))
            inputs = 4 * width
    return nn.ModuleList(layers)


def linear_stack(parameters: float, width: int = 2048) -> nn.ModuleList:
    """Return linear layers without biases that have about so many weights together."""
    return nn.ModuleList(
        nn.Linear(width, width, bias=False) for _ in range(max(1, round(parameters / width**2)))
    )


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(inputs)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(inputs))


class ResNet18(nn.Sequential):
    """ResNet-18, with its 11.7 million parameters unless it is given another width."""

    def __init__(self, classes: int = 1000, width: int = 64) -> None:
        stem = [nn.Conv2d(3, width, 7, 2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2, padding=1)]
        inputs = width
        for factor, stride in ((1, 1), (2, 2), (4, 2), (8, 2)):
            layers += [Block(inputs, factor * width, stride), Block(*[factor * width] * 2, 1)]
            inputs = factor * width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class DecoderLayer(nn.Module):
    """Attention with fewer keys than queries, rotary positions, and a gated unit, as in Llama."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.size = width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width // 2, bias=False)
        self.v = nn.Linear(width, width // 2, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 3 * width, bias=False)
        self.up = nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)

    def rotated(self, inputs: Tensor) -> Tensor:
        angles = torch.arange(inputs.shape[2])[:, None] / 10000 ** torch.linspace(
            0, 1, self.size // 2
        )
        left, right = inputs.chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.view(*x.shape[:2], -1, self.size).transpose(1, 2)

        x = self.norm1(inputs)
        mixed = nn.functional.scaled_dot_product_attention(
            self.rotated(heads(self.q(x))),
            self.rotated(heads(self.k(x))),
            heads(self.v(x)),
            is_causal=True,
            enable_gqa=True,
        )
        inputs = inputs + self.out(mixed.transpose(1, 2).flatten(2))
        x = self.norm2(inputs)
        return inputs + self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Decoder(nn.Module):
    """A decoder-only transformer of any depth."""

    def __init__(self, depth: int, width: int = 512, heads: int = 8, words: int = 1000) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.layers = nn.Sequential(*(DecoderLayer(width, heads) for _ in range(depth)))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, words, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embedding(words))))


class ViTTiny(nn.Sequential):
    """A vision transformer of the size of ViT-Ti/16, 5.7 million parameters, of decoder layers."""

    def __init__(self, classes: int = 1000, width: int = 192, depth: int = 14) -> None:
        super().__init__(
            nn.Conv2d(3, width, 16, 16),
            nn.Flatten(2),
            Transposed(),
            *(DecoderLayer(width, 2) for _ in range(depth)),
            nn.RMSNorm(width),
            Transposed(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )


class Transposed(nn.Module):
    """The last two axes exchanged."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.transpose(1, 2)
