"""Networks that benchmarks need and torch does not bring."""

import torch
from torch import Tensor, nn

__all__ = ["ResNet18", "linear_stack", "resnet50_convolutions"]


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
    """ResNet-18 with its 11.7 million parameters."""

    def __init__(self, classes: int = 1000) -> None:
        stem = [nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        layers: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2, padding=1)]
        inputs = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [Block(inputs, width, stride), Block(width, width, 1)]
            inputs = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
