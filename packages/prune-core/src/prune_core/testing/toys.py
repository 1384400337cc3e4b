"""Models that are small enough for a unit test, and large enough to be pruned.

Their channel counts are unlike each other and rarely round, so that a swapped axis or a rounded
number of channels does not pass by luck. Every image model takes 3 × 8 × 8 images except `LeNet`,
and every model returns 10 scores.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MLP", "ConvNet", "LeNet", "ResidualNet", "make_batch", "make_toy"]


class MLP(nn.Module):
    """Three linear layers on a flattened image."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(192, 30)
        self.fc2 = nn.Linear(30, 21)
        self.fc3 = nn.Linear(21, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = F.relu(self.fc1(images.flatten(1)))
        scores: Tensor = self.fc3(F.relu(self.fc2(x)))
        return scores


class ConvNet(nn.Module):
    """Two convolutions with batch normalisation, and a linear layer."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(7)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(7, 12, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(12 * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = F.max_pool2d(self.relu1(self.bn1(self.conv1(images))), 2)
        x = F.max_pool2d(self.relu2(self.bn2(self.conv2(x))), 2)
        scores: Tensor = self.fc(x.flatten(1))
        return scores


class ResidualNet(nn.Module):
    """A block whose output is added to its input: channels that can only go together."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 9, 3, padding=1)
        self.conv1 = nn.Conv2d(9, 14, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(14)
        self.conv2 = nn.Conv2d(14, 9, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(9)
        self.fc = nn.Linear(9, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = F.relu(self.stem(images))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class LeNet(nn.Module):
    """LeNet-5, for 1 × 28 × 28 images."""

    input_shape = (1, 28, 28)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        scores: Tensor = self.fc3(F.relu(self.fc2(x)))
        return scores


def make_toy(toy: Callable[[], nn.Module] = ConvNet, *, seed: int = 0) -> nn.Module:
    """Make a toy model with reproducible weights, and normalisations that do something.

    Args:
        toy: The class.
        seed: Of the random numbers.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = toy()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model


def make_batch(model: Any = ConvNet, size: int = 4, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make a batch of random images and labels for a model, or class, with an `input_shape`.

    Args:
        model: A toy, or its class.
        size: How many images.
        seed: Of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, *model.input_shape, generator=generator)
    return images, torch.randint(10, (size,), generator=generator)
