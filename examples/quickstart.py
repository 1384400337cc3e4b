"""Quick start: remove half of a network for handwritten digits.

It trains a small network, removes half of it, fine-tunes it, and shows what that changes.

Run it with `tox run -e quickstart`, or with `python examples/quickstart.py` where the packages and
scikit-learn are installed. It takes a few seconds on a CPU.
"""

from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from prune_core import shrink, unwrap
from prune_filter import L1NormPruner

# Half of the output channels of every convolution and linear layer go; the last layer keeps its
# ten, one for each digit.
CONFIG_LIST = [
    {"op_types": ["Conv2d", "Linear"], "sparsity_per_layer": 0.5},
    {"op_names": ["fc2"], "exclude": True},
]
SEED = 0
BATCH = 256  # images at once, where latency is measured
ROUNDS = 50


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
    masked: int
    flops: int
    milliseconds: float


def measure(stages: dict[str, nn.Module], digits: Digits) -> list[Measured]:
    """Measure what each model can do, and what it costs."""
    milliseconds = latencies(list(stages.values()), digits.images[:BATCH])
    return [
        Measured(
            name,
            accuracy(model, digits),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            masked=masked(model),
            flops=flops(model, digits.images[:1]),
            milliseconds=latency,
        )
        for (name, model), latency in zip(stages.items(), milliseconds, strict=True)
    ]


@torch.no_grad()
def accuracy(model: nn.Module, digits: Digits) -> float:
    return (model(digits.images).argmax(1) == digits.labels).float().mean().item()


def masked(model: nn.Module) -> int:
    """Count the values that masks hide."""
    masks = (mask for name, mask in model.named_buffers() if name.endswith("_mask"))
    return sum(int((mask == 0).sum()) for mask in masks)


@torch.no_grad()
def flops(model: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


@torch.no_grad()
def latencies(models: list[nn.Module], images: Tensor) -> list[float]:
    """Time all models in turn, so that whatever else the machine does meets each of them."""
    fastest = [float("inf")] * len(models)
    for _ in range(ROUNDS):
        for i, model in enumerate(models):
            start = perf_counter()
            model(images)
            fastest[i] = min(fastest[i], 1000 * (perf_counter() - start))
    return fastest


@torch.no_grad()
def largest_difference(one: nn.Module, other: nn.Module, images: Tensor) -> float:
    return (one(images) - other(images)).abs().max().item()


def show(rows: list[Measured]) -> None:
    print(
        f"{'':20}{'accuracy':>10}{'parameters':>12}{'masked':>10}{'FLOPs/image':>13}{'ms/batch':>10}"
    )
    for row in rows:
        print(
            f"{row.name:20}{row.accuracy:>10.1%}{row.parameters:>12,}{row.masked:>10,}"
            f"{row.flops:>13,}{row.milliseconds:>10.2f}"
        )


def main() -> None:
    torch.manual_seed(SEED)
    digits = load()
    model = DigitNet()
    train(model, digits, epochs=8, lr=2e-3)
    stages: dict[str, nn.Module] = {"dense": deepcopy(model)}

    _, masks = L1NormPruner(model, CONFIG_LIST).compress()
    stages["masked"] = deepcopy(model)

    unwrap(model)
    shrink(model, digits.images[:2], masks)
    stages["small"] = deepcopy(model)

    train(model, digits, epochs=4, lr=1e-3)
    stages["small, fine-tuned"] = model

    show(measure(stages, digits))
    print(
        "\nMasks hide weights and make nothing smaller: the masked network has the parameters and"
        "\nthe FLOPs of the dense one. Latency is the fastest of "
        f"{ROUNDS} batches of {BATCH} images,\nwith {torch.get_num_threads()} threads."
    )
    difference = largest_difference(stages["masked"], stages["small"], digits.images)
    if difference > 1e-4:
        raise SystemExit(f"The outputs of the small and the masked network differ: {difference}")
    print(
        "\nThe small network computes what the masked one does: their outputs for "
        f"{len(digits.images)} test\nimages differ by {difference:.1e} at most, which is rounding."
    )


if __name__ == "__main__":
    main()
