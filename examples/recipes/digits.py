"""What examples/recipes/digits.yaml names: a small network that reads handwritten digits."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

LEARN = 1347  # of 1797 images; the others are for the test


def make(width: int = 16) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * width, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def images() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels).float().reshape(-1, 1, 8, 8) / 16, torch.tensor(labels)


def batches() -> list[Tensor]:
    """Inputs to look at while pruning; labels are not needed."""
    return list(images()[0][:512].split(64))


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Train for one epoch."""
    inputs, labels = images()
    for part in torch.randperm(LEARN).split(64):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[part]), labels[part]).backward()
        optimizer.step()


def accuracy(model: nn.Module) -> float:
    inputs, labels = images()
    right = model(inputs[LEARN:]).argmax(1) == labels[LEARN:]
    return right.float().mean().item()
