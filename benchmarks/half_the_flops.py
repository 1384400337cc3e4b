"""What is left of a small MobileNet at half of its FLOPs, by who says where to prune.

    python benchmarks/half_the_flops.py                      # scikit-learn's digits
    python benchmarks/half_the_flops.py --data cifar-10      # a folder with CIFAR-10

The network is trained; then uniform L1, simulated annealing, AMC and NetAdapt each prune a copy to
the same budget, scored on images that neither training nor testing sees; what is left is made
small, fine-tuned for the same number of epochs, and tested. Since NetAdapt trains while it
searches, uniform L1 is also tuned for as many epochs as that. Several seeds, and a table in
Markdown.

It needs prune-filter, prune-schedule[amc], and scikit-learn for the digits. CIFAR-10 is read in any
of the forms that `benchmarks/headline/data.py` names.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from headline.data import read
from headline.networks import small_mobilenet
from torch import Tensor, nn

import prune_core
from prune_schedule import AMCPruner, NetAdaptPruner, SimulatedAnnealingPruner

TARGET = {"flops": 0.5}
RULES = [{"op_types": ["Conv2d"]}]
BATCH = 64


@dataclass
class Part:
    """Images and their classes."""

    images: Tensor
    labels: Tensor

    def __getitem__(self, which: Tensor | slice) -> "Part":
        return Part(self.images[which], self.labels[which])

    def __len__(self) -> int:
        return len(self.labels)


def digits() -> tuple[Part, Part]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.images / 16 - 0.3, dtype=torch.float32)[:, None]
    everything = Part(images, torch.tensor(found.target))
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    return everything[order[:1300]], everything[order[1300:]]


def cifar10(folder: Path) -> tuple[Part, Part]:
    learn, test = read(folder)
    # In some forms all images of a class stand together.
    learn = learn.shuffled()
    return Part(learn.scaled(), learn.labels), Part(test.scaled(), test.labels)


def train(model: nn.Module, data: Part, epochs: float, rate: float) -> None:
    """Train with a rate that falls to nothing along a cosine."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    steps = max(1, round(epochs * len(data) / BATCH))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        begin = step * BATCH % len(data)
        if begin < BATCH:
            order = torch.randperm(len(data))
        batch = data[order[begin : begin + BATCH]]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.images), batch.labels).backward()
        optimizer.step()
        schedule.step()


def accuracy(model: nn.Module, data: Part) -> float:
    model.eval()
    with torch.no_grad():
        right = [
            (model(data[slice(i, i + 1000)].images).argmax(1) == data.labels[i : i + 1000]).sum()
            for i in range(0, len(data), 1000)
        ]
    return float(sum(right)) / len(data)


def recalibrated(model: nn.Module, data: Part) -> nn.Module:
    """Return a copy whose normalisations know what the channels that are left look like."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        for begin in range(0, 256, BATCH):
            model(data[slice(begin, begin + BATCH)].images)
    return model


Prune = Callable[[nn.Module], int]


def ways(options: argparse.Namespace, seed: int, learn: Part, held: Part) -> dict[str, Prune]:
    """Return what prunes a model in place, wrapped, and returns how often it evaluated."""
    x = learn.images[:1]
    common = {"target": TARGET, "dummy_input": x, "pruning_algorithm": "l1", "seed": seed}

    def evaluate(model: nn.Module) -> float:
        return accuracy(recalibrated(model, learn), held)

    def finetune(model: nn.Module) -> None:
        train(model, learn, options.short, 1e-3)

    def uniform(model: nn.Module) -> int:
        prune_core.prune(model, "l1", target=TARGET, example_inputs=x, targets="Conv2d")
        return 0

    def uniform_and_longer(model: nn.Module) -> int:
        """Uniform L1, trained for as many epochs as NetAdapt's result has been by then."""
        rounds = (1 - TARGET["flops"]) / options.step
        uniform(model)
        train(model, learn, rounds * options.short, 1e-3)
        return 0

    def annealing(model: nn.Module) -> int:
        rate = 0.2 ** (1 / (options.trials - 2))
        pruner = SimulatedAnnealingPruner(model, RULES, evaluate, cool_down_rate=rate, **common)
        return len(pruner.run().trials)

    def amc(model: nn.Module) -> int:
        pruner = AMCPruner(
            model,
            RULES,
            evaluate,
            train_episode=options.trials,
            warmup=options.trials // 4,
            delta_decay=0.97,
            lr_a=1e-3,
            lr_c=1e-2,
            **common,
        )
        return len(pruner.run().trials)

    def netadapt(model: nn.Module) -> int:
        pruner = NetAdaptPruner(
            model, RULES, finetune, evaluate, sparsity_per_iteration=options.step, **common
        )
        return len(pruner.run().trials)

    return {
        "uniform L1": uniform,
        "uniform L1, tuned longer": uniform_and_longer,
        "simulated annealing": annealing,
        "AMC": amc,
        "NetAdapt": netadapt,
    }


@dataclass
class Row:
    """What came of one way, for one seed."""

    flops: float
    parameters: float
    evaluations: int
    pruned: float
    tuned: float


def one(model: nn.Module, prune: Prune, options: argparse.Namespace, data: list[Part]) -> Row:
    learn, _, test = data
    evaluations = prune(model)
    masks = {name: wrapper.masks for name, wrapper in prune_core.masking.wrappers_in(model).items()}
    prune_core.unwrap(model)
    report = prune_core.shrink(model, learn.images[:1], masks)
    pruned = accuracy(recalibrated(model, learn), test)
    train(model, learn, options.finetune, 1e-3)
    ratios = (after / before for before, after in (report.flops, report.parameters))
    return Row(*ratios, evaluations, pruned, accuracy(model, test))


def shown(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with CIFAR-10; digits unless given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100, help="of annealing and of AMC")
    parser.add_argument("--step", type=float, default=0.05, help="NetAdapt's reduction a round")
    parser.add_argument("--epochs", type=float, default=25, help="of training")
    parser.add_argument("--short", type=float, default=1, help="epochs for NetAdapt's candidates")
    parser.add_argument("--finetune", type=float, default=10, help="epochs after pruning")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, help="train with no more than these")
    options = parser.parse_args()
    learn, test = digits() if options.data is None else cifar10(options.data)
    held_back = min(len(learn) * 3 // 13, 2000)
    last = None if options.images is None else held_back + options.images
    held, learn = learn[slice(0, held_back)], learn[slice(held_back, last)]
    dense, rows = [], {}
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = small_mobilenet(learn.images.shape[1], options.width)
        train(model, learn, options.epochs, 3e-3)
        dense.append(accuracy(model, test))
        for name, prune in ways(options, seed, learn, held).items():
            began = time.perf_counter()
            torch.manual_seed(seed)
            row = one(copy.deepcopy(model), prune, options, [learn, held, test])
            rows.setdefault(name, []).append(row)
            seconds = time.perf_counter() - began
            print(f"seed {seed}, {name}: {row}, {seconds:.0f} s", flush=True)
    print(f"\ndense: {shown(dense)} of {len(test)} test images\n")
    print("| | FLOPs left | parameters left | evaluations | accuracy, pruned | fine-tuned |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        print(
            f"| {name} | {100 * mean(r.flops for r in found):.1f} % "
            f"| {100 * mean(r.parameters for r in found):.1f} % "
            f"| {mean(r.evaluations for r in found):.0f} "
            f"| {shown([r.pruned for r in found])} | {shown([r.tuned for r in found])} |"
        )


if __name__ == "__main__":
    main()
