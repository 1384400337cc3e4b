"""Prune a network for handwritten digits to a fifth of its FLOPs, and train it with its teacher.

Run it with `python examples/distill.py` where prune-core, prune-speedup, prune-filter,
prune-recover and scikit-learn are installed. It takes half a minute on a CPU.

Labels are scarce here: 100 images have some. The others have none, and still teach, because the
network before pruning says what it thinks of them.
"""

from copy import deepcopy

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import prune_core

SEED = 0
LABELLED = 100
STEPS = 400


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1347 images to learn from and 450 to be tested on; they come with scikit-learn."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(labels)
    learn, test = train_test_split(
        range(len(labels)), test_size=450, random_state=SEED, stratify=labels
    )
    return images[learn], labels[learn], images[test], labels[test]


def build() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 10)),
    )


def pairs(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(64), labels.split(64), strict=True))


def main() -> None:
    torch.manual_seed(SEED)
    images, labels, test_images, test_labels = load()

    def accuracy(model: nn.Module) -> float:
        return (model(test_images).argmax(1) == test_labels).float().mean().item()

    dense = build()
    prune_core.recover(dense, pairs(images, labels), epochs=8)  # a training like any other
    print(f"{'dense':28} {accuracy(dense.eval()):6.1%}")

    small = deepcopy(dense)
    example = images[:2]
    _, masks = prune_core.prune(small, "l1", target={"flops": 0.2}, example_inputs=example)
    prune_core.shrink(prune_core.unwrap(small), example, masks)
    print(f"{'a fifth of its FLOPs':28} {accuracy(small):6.1%}")

    few = pairs(images[:LABELLED], labels[:LABELLED])
    alone = prune_core.recover(deepcopy(small), few, steps=STEPS, evaluate=accuracy)
    print(f"{f'trained with {LABELLED} labels':28} {alone.quality_after:6.1%}")

    unlabelled = list(images.split(64))
    taught = prune_core.recover(small, unlabelled, teacher=dense, steps=STEPS, evaluate=accuracy)
    print(f"{'trained with its teacher':28} {taught.quality_after:6.1%}")


if __name__ == "__main__":
    main()
