"""Train a small network on handwritten digits, and say what it costs to run it.

Run it with `tox run -e quickstart`, or with `python examples/quickstart.py` where the packages and
scikit-learn are installed. It takes a few seconds on a CPU.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

SEED = 0
BATCH = 256  # images at once, where latency is measured


class DigitNet(nn.Module):
    """Three convolutions and two linear layers for images of 8 × 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.fc1 = nn.Linear(128 * 2 * 2, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.conv1(images))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


@dataclass
class Digits:
    """1347 images to learn from and 450 to be tested on; they come with scikit-learn."""

    train: TensorDataset
    images: Tensor
    labels: Tensor


def load() -> Digits:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(labels)
    learn, test = train_test_split(
        range(len(labels)), test_size=450, random_state=SEED, stratify=labels
    )
    return Digits(TensorDataset(images[learn], labels[learn]), images[test], labels[test])


def train(model: nn.Module, digits: Digits, *, epochs: int, lr: float) -> None:
    """Train as one always does: pruning needs no loop of its own."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    batches = DataLoader(
        digits.train, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(SEED)
    )
    model.train()
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    model.eval()


@dataclass
class Measured:
    """One row of the table."""

    name: str
    accuracy: float
    parameters: int
    flops: int
    milliseconds: float


@torch.no_grad()
def measure(name: str, model: nn.Module, digits: Digits) -> Measured:
    """Measure what a model can do, and what it costs."""
    model.eval()
    accuracy = (model(digits.images).argmax(1) == digits.labels).float().mean().item()
    with FlopCounterMode(display=False) as counter:
        model(digits.images[:1])
    batch = digits.images[:BATCH]
    timer = Timer("model(batch)", globals=locals(), num_threads=torch.get_num_threads())
    return Measured(
        name,
        accuracy,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=counter.get_total_flops(),
        milliseconds=timer.blocked_autorange(min_run_time=0.5).median * 1000,
    )


def show(rows: list[Measured]) -> None:
    print(f"{'':24}{'accuracy':>10}{'parameters':>12}{'FLOPs/image':>13}{'ms/batch':>10}")
    for row in rows:
        print(
            f"{row.name:24}{row.accuracy:>10.1%}{row.parameters:>12,}"
            f"{row.flops:>13,}{row.milliseconds:>10.2f}"
        )


def main() -> None:
    torch.manual_seed(SEED)
    digits = load()
    model = DigitNet()
    train(model, digits, epochs=8, lr=2e-3)
    rows = [measure("dense", model, digits)]
    show(rows)
    print(f"\nLatency: median for a batch of {BATCH} images, {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    main()
