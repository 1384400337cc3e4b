"""The networks of the experiments, in the form that they have for images of 32 × 32 pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "VGG", "ResNet", "build", "small_mobilenet"]


class VGG(nn.Module):
    """VGG with batch normalisation: with 16 layers as Li et al. pruned it, with 19 as Liu et al.

    The former has a hidden linear layer, and 15.0 million parameters; the latter has none, and
    20.0 million.
    """

    PLANS = {  # noqa: RUF012
        16: (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3),
        19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4),
    }

    def __init__(self, depth: int, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for step in self.PLANS[depth]:
            if step == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            outputs = int(step) * width // 64
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        hidden = [nn.Linear(inputs, inputs), nn.BatchNorm1d(inputs), nn.ReLU(inplace=True)]
        last = nn.Linear(inputs, classes)
        self.classifier = nn.Sequential(*(hidden if depth == 16 else []), last)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        inner = torch.relu(self.bn1(self.conv1(images)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(images))


class ResNet(nn.Module):
    """ResNet-20, 32, 44, 56 … for CIFAR: three stages of (depth - 2) / 6 blocks."""

    def __init__(self, depth: int, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest:
            raise ValueError(f"depth is {depth}; it must be 6n + 2, such as 20 or 56.")
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            outputs = width * 2**stage
            for block in range(blocks):
                layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(inputs, classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        found = self.layers(torch.relu(self.bn1(self.conv1(images))))
        return self.linear(found.mean((2, 3)))


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Return a depthwise convolution for space and a pointwise one for channels."""
    return [
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        *(nn.BatchNorm2d(inputs), nn.ReLU()),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        *(nn.BatchNorm2d(outputs), nn.ReLU()),
    ]


def small_mobilenet(channels: int, width: int) -> nn.Sequential:
    """Return a MobileNet of five blocks."""
    w = width
    return nn.Sequential(
        *(nn.Conv2d(channels, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU()),
        *_separable(w, 2 * w, 1),
        *_separable(2 * w, 2 * w, 1),
        *_separable(2 * w, 4 * w, 2),
        *_separable(4 * w, 4 * w, 1),
        *_separable(4 * w, 4 * w, 1),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 10)),
    )


# name: what makes it, and its width
NETWORKS: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "VGG-16": (lambda width: VGG(16, width=width), 64),
    "VGG-19": (lambda width: VGG(19, width=width), 64),
    "ResNet-20": (lambda width: ResNet(20, width=width), 16),
    "ResNet-56": (lambda width: ResNet(56, width=width), 16),
    "small MobileNet": (lambda width: small_mobilenet(3, width), 32),
}


def build(name: str, narrower: int = 1) -> nn.Module:
    """Return a network with new weights, a number of times narrower than the published one."""
    make, width = NETWORKS[name]
    return make(width // narrower)
