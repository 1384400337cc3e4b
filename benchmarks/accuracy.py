"""What each algorithm leaves of a small network, and how good it still is.

Run it with `python benchmarks/accuracy.py`; it needs the packages and scikit-learn, or a folder
with MNIST (`--data`). Everything gets the same trained network, the same budget and the same
fine-tuning afterwards, so a row differs from the row of uniform L1 in nothing but the algorithm.

* Channels: all keep to a budget of FLOPs. Criteria and schedules prune every layer by the same
  ratio, as much as the budget asks for; searches distribute it. The network is really made small.
* Single weights: the budget is a ratio of weights, the same in every layer unless the algorithm
  ranks all layers together. Masks stay, and FLOPs are those of the dense network.

Searches and NetAdapt's choices are scored on validation images; accuracy is that of test images,
which nothing else sees.
"""

import argparse
import copy
import gzip
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prune_core import PruneWarning, get_pruner, shrink, unwrap
from prune_schedule import (
    ADMMPruner,
    AGPPruner,
    AutoCompressPruner,
    LinearPruner,
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)

MOST = {"max_sparsity_per_layer": 0.9}
WHERE = [{"op_types": ["Conv2d"], **MOST}, {"op_names": ["fc1"], **MOST}]
LAYERS = ("conv1", "conv2", "conv3", "fc1")
NORMS = {"conv1": "norm1", "conv2": "norm2", "conv3": "norm3"}
EPOCHS = 8  # of fine-tuning, in which gradual schedules also prune


@dataclass
class Data:
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    epochs: int  # until the dense network is trained

    @property
    def example(self) -> Tensor:
        return self.test[0][:1]


class Net(nn.Module):
    """Three convolutions and two linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv3, self.norm3 = nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.fc1, self.fc2 = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        x = F.relu(self.norm3(self.conv3(x))).mean((2, 3))
        return self.fc2(F.relu(self.fc1(x)))


# --- data ---------------------------------------------------------------------------------------


def digits() -> Data:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    parts = [(images[part], labels[part]) for part in order.split([900, 300, 597])]
    return Data(*parts, epochs=60)


def mnist(folder: Path, few: int) -> Data:
    def read(name: str, skip: int) -> Tensor:
        raw = gzip.decompress(next(folder.glob(f"{name}*.gz")).read_bytes())
        return torch.frombuffer(bytearray(raw[skip:]), dtype=torch.uint8)

    def part(name: str) -> tuple[Tensor, Tensor]:
        images = read(f"{name}-images", 16).view(-1, 1, 28, 28).float() / 255
        return images, read(f"{name}-labels", 8).long()

    images, labels = part("train")
    chosen = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[: few + 5000]
    train, validation = chosen.split([few, 5000])
    parts = [(images[part], labels[part]) for part in (train, validation)]
    return Data(*parts, part("t10k"), epochs=20)


# --- training and measuring ---------------------------------------------------------------------


class Trainer:
    """What a user brings: functions that train and evaluate."""

    def __init__(self, data: Data, seed: int) -> None:
        self.data, self.draws = data, torch.Generator().manual_seed(seed)

    def train(self, model: nn.Module, epochs: int = 1, lr: float = 1e-3) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr)
        model.train()
        for images, labels in self.batches(epochs):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()

    def batches(self, epochs: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.data.train
        for _ in range(epochs):
            for part in torch.randperm(len(labels), generator=self.draws).split(64):
                yield images[part], labels[part]

    def calibrate(self, model: nn.Module) -> None:
        """Run forward and backward, and change nothing."""
        model.eval()
        for images, labels in self.batches():
            F.cross_entropy(model(images), labels).backward()
        model.zero_grad()

    def losses(self, model: nn.Module) -> Tensor:
        images, labels = self.data.train
        return F.cross_entropy(model(images[:256]), labels[:256])

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Return minus the loss on validation images, normalised as what is left would be.

        Means and variances of the dense network say nothing about a pruned one; without new ones
        all candidates look equally bad.
        """
        probe = copy.deepcopy(model).train()
        for module in probe.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        for part in self.data.train[0][:512].split(128):
            probe(part)
        images, labels = self.data.validation
        return -F.cross_entropy(probe.eval()(images), labels).item()

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        model.eval()
        images, labels = self.data.test
        return (model(images).argmax(1) == labels).float().mean().item()


@torch.no_grad()
def flops(model: nn.Module, example: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(example)
    return counter.get_total_flops()


@torch.no_grad()
def latency(model: nn.Module, example: Tensor) -> float:
    """Return the milliseconds of the fastest of many batches of 64."""
    images, best = example.expand(64, -1, -1, -1).contiguous(), float("inf")
    for _ in range(100):
        began = time.perf_counter()
        model(images)
        best = min(best, time.perf_counter() - began)
    return 1e3 * best


def parameters_left(model: nn.Module) -> int:
    """Count parameters that are not masked."""
    hidden = sum(
        int((~mask.bool()).sum()) for name, mask in model.named_buffers() if name.endswith("_mask")
    )
    return sum(parameter.numel() for parameter in model.parameters()) - hidden


# --- channels -----------------------------------------------------------------------------------

Prune = Callable[[nn.Module, Trainer, float], int]  # returns the epochs of training left


def uniform(model: nn.Module, data: Data, budget: float) -> dict[str, float]:
    """Return the one ratio for all layers with which FLOPs meet the budget."""
    probe = SimulatedAnnealingPruner(
        copy.deepcopy(model),
        WHERE,
        len,
        pruning_algorithm="l1",
        target={"flops": budget},
        dummy_input=data.example,
    )
    return probe.uniform()


def rules(model: nn.Module, data: Data, budget: float) -> list[dict[str, Any]]:
    ratios = uniform(model, data, budget)
    return [{"op_names": [name], "sparsity_per_layer": ratios[name]} for name in LAYERS]


def make_small(model: nn.Module, data: Data, masks: dict[str, dict[str, Tensor]]) -> None:
    unwrap(model)
    shrink(model, data.example, masks)


def one_shot(name: str, **arguments: Callable[[Trainer], Any]) -> Prune:
    def prune(model: nn.Module, trainer: Trainer, budget: float) -> int:
        entries = rules(model, trainer.data, budget)
        if name == "slim":  # which prunes the normalisation of a convolution
            entries = [
                {"op_names": [NORMS[entry["op_names"][0]]], **_sparsity(entry)}
                for entry in entries
                if entry["op_names"][0] in NORMS
            ] + [{"op_names": ["fc1"], "exclude": True}]
        if name == "hrank":  # which is for feature maps
            entries = [entry for entry in entries if entry["op_names"] != ["fc1"]]
        given = {key: make(trainer) for key, make in arguments.items()}
        pruner = get_pruner(name)(model, entries, **given)
        _, masks = pruner.compress(trainer.data.example)
        make_small(model, trainer.data, masks)
        return EPOCHS

    return prune


def _sparsity(entry: dict[str, Any]) -> dict[str, Any]:
    return {"sparsity_per_layer": entry["sparsity_per_layer"]}


def gradual(schedule: type) -> Prune:
    def prune(model: nn.Module, trainer: Trainer, budget: float) -> int:
        entries = [
            {"op_names": entry["op_names"], "sparsity": entry["sparsity_per_layer"]}
            for entry in rules(model, trainer.data, budget)
        ]
        pruner = schedule(
            model, entries, pruning_algorithm="l1", total_iteration=4, finetune=trainer.train
        )
        _, masks = pruner.compress(trainer.data.example)
        make_small(model, trainer.data, masks)
        return EPOCHS - 5  # one in each of the rounds 0 to 4

    return prune


def admm(model: nn.Module, trainer: Trainer, budget: float) -> int:
    entries = [{**entry, "rho": 0.01} for entry in rules(model, trainer.data, budget)]
    pruner = ADMMPruner(
        model,
        entries,
        finetune=trainer.train,
        iterations=4,
        training_epochs=1,
        pruning_algorithm="l1",
    )
    _, masks = pruner.compress(trainer.data.example)
    make_small(model, trainer.data, masks)
    return EPOCHS - 4


def search(kind: type, **arguments: Any) -> Prune:
    def prune(model: nn.Module, trainer: Trainer, budget: float) -> int:
        pruner = kind(
            model,
            WHERE,
            evaluate=trainer.score,
            pruning_algorithm="l1",
            target={"flops": budget},
            dummy_input=trainer.data.example,
            **arguments,
        )
        _, masks = pruner.compress()
        make_small(model, trainer.data, masks)
        return EPOCHS

    return prune


def netadapt(model: nn.Module, trainer: Trainer, budget: float) -> int:
    pruner = NetAdaptPruner(
        model,
        WHERE,
        pruning_algorithm="l1",
        target={"flops": budget},
        dummy_input=trainer.data.example,
        sparsity_per_iteration=0.1,
    )
    result = pruner.run(trainer.score, trainer.train)
    make_small(model, trainer.data, result.masks)
    return EPOCHS


def autocompress(model: nn.Module, trainer: Trainer, budget: float) -> int:
    AutoCompressPruner(
        model,
        WHERE,
        target={"flops": budget},
        dummy_input=trainer.data.example,
        total_iteration=2,
        admm_num_iterations=2,
        admm_training_epochs=1,
        finetune=trainer.train,
        evaluate=trainer.score,
    ).run()
    unwrap(model)
    return EPOCHS - 4


CHANNELS: dict[str, Prune] = {
    "l1": one_shot("l1"),
    "l2": one_shot("l2"),
    "fpgm": one_shot("fpgm"),
    "slim": one_shot(
        "slim", calibrate=lambda trainer: trainer.train, mode=lambda trainer: "normal"
    ),
    "apoz": one_shot("apoz", calibrate=lambda trainer: trainer.calibrate),
    "mean_activation": one_shot("mean_activation", calibrate=lambda trainer: trainer.calibrate),
    "hrank": one_shot("hrank", calibrate=lambda trainer: trainer.calibrate),
    "taylorfo": one_shot("taylorfo", calibrate=lambda trainer: trainer.calibrate),
    "group_taylor": one_shot("group_taylor", calibrate=lambda trainer: trainer.calibrate),
    "random": one_shot("random"),
    "linear (l1)": gradual(LinearPruner),
    "agp (l1)": gradual(AGPPruner),
    "admm (l1)": admm,
    "sensitivity (l1)": search(SensitivityPruner, acc_drop_threshold=0.2),
    "simulated_annealing (l1)": search(SimulatedAnnealingPruner, cool_down_rate=0.97),
    "netadapt (l1)": netadapt,
    "autocompress (l1)": autocompress,
}


# --- single weights -----------------------------------------------------------------------------


def weights(name: str, **arguments: Callable[[Trainer], Any]) -> Prune:
    def prune(model: nn.Module, trainer: Trainer, budget: float) -> int:
        given = {key: make(trainer) for key, make in arguments.items()}
        entries = [{"op_names": [layer], "sparsity": 1 - budget} for layer in LAYERS]
        if given.get("mode") == "global" or name in ("snip", "grasp", "synflow"):
            entries = [{"op_names": list(LAYERS), "total_sparsity": 1 - budget}]
        if name == "nm":
            entries = entries[1:]  # one input channel cannot be cut into groups
        get_pruner(name)(model, entries, **given).compress()
        return EPOCHS

    return prune


WEIGHTS: dict[str, Prune] = {
    "level": weights("level"),
    "level, global": weights("level", mode=lambda trainer: "global"),
    "movement": weights("movement", calibrate=lambda trainer: trainer.train),
    "snip": weights("snip", calibrate=lambda trainer: trainer.calibrate),
    "grasp": weights("grasp", calibrate=lambda trainer: trainer.losses),
    "synflow": weights("synflow", dummy_input=lambda trainer: trainer.data.example),
    "random_weight": weights("random_weight"),
    "nm": weights("nm"),
}


# --- the table ----------------------------------------------------------------------------------


@dataclass
class Row:
    pruned: float
    tuned: float
    parameters: float
    flops: float
    seconds: float
    milliseconds: float


def measure(
    prune: Prune, dense: nn.Module, data: Data, seed: int, budget: float, timed: bool
) -> Row:
    model, trainer = copy.deepcopy(dense), Trainer(data, seed)
    torch.manual_seed(seed)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruneWarning)
        left = prune(model, trainer, budget)
    pruned, seconds = trainer.accuracy(model), time.perf_counter() - began
    trainer.train(model, left)
    example = data.example
    return Row(
        pruned,
        trainer.accuracy(model),
        parameters_left(model) / parameters_left(dense),
        flops(model, example) / flops(dense, example),
        seconds,
        latency(model, example) if timed else float("nan"),
    )


def show(title: str, table: dict[str, list[Row]], base: str, timed: bool) -> None:
    print(f"\n{title}\n")
    print(
        "| algorithm | accuracy | difference | better, worse | not tuned | parameters | FLOPs |"
        + (" seconds | ms |" if timed else "")
    )
    print("| --- |" + " ---: |" * (8 if timed else 6))

    def mean(values: Iterator[float]) -> float:
        return statistics.fmean(values)

    for name, rows in table.items():
        differences = [
            row.tuned - other.tuned for row, other in zip(rows, table[base], strict=True)
        ]
        spread = statistics.stdev(row.tuned for row in rows) if len(rows) > 1 else 0.0
        better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
        print(
            f"| {name} | {100 * mean(row.tuned for row in rows):.1f} ± {100 * spread:.1f} "
            f"| {100 * statistics.fmean(differences):+.1f} | {better}, {worse} "
            f"| {100 * mean(row.pruned for row in rows):.1f} "
            f"| {100 * mean(row.parameters for row in rows):.0f} % "
            f"| {100 * mean(row.flops for row in rows):.0f} % |"
            + (
                f" {mean(row.seconds for row in rows):.1f} |"
                f" {mean(row.milliseconds for row in rows):.2f} |"
                if timed
                else ""
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder with MNIST's four .gz files")
    parser.add_argument("--few", type=int, default=5000, help="of MNIST's images to train with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.5, 0.25], help="of FLOPs")
    parser.add_argument(
        "--weights", type=float, nargs="*", default=[0.5, 0.1], help="that are left"
    )
    parser.add_argument("--only", nargs="*", help="names of algorithms, beside the baselines")
    parser.add_argument("--latency", action="store_true", help="and seconds, on a quiet machine")
    options = parser.parse_args()
    data = mnist(options.data, options.few) if options.data else digits()

    nets = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        net = Net(data.example.shape[1])
        Trainer(data, seed).train(net, data.epochs, lr=2e-3)
        nets.append(net)
    trainer = Trainer(data, 0)
    dense = statistics.fmean(trainer.accuracy(net) for net in nets)
    print(
        f"{options.seeds} networks; dense: accuracy {100 * dense:.1f}, "
        f"{parameters_left(nets[0]):,} parameters, {flops(nets[0], data.example):,} FLOPs an image"
        + (f", {latency(nets[0], data.example):.2f} ms a batch of 64" if options.latency else "")
    )
    for what, algorithms, base, budgets in (
        ("Channels", CHANNELS, "l1", options.budgets),
        ("Single weights", WEIGHTS, "level", options.weights),
    ):
        for budget in budgets:
            table: defaultdict[str, list[Row]] = defaultdict(list)
            for name, prune in algorithms.items():
                if options.only and name != base and name.split()[0] not in options.only:
                    continue
                if name == "nm" and budget != 0.5:
                    continue
                for seed, net in enumerate(nets):
                    row = measure(prune, net, data, seed, budget, options.latency)
                    table[name].append(row)
            of = "FLOPs" if algorithms is CHANNELS else "weights"
            show(f"{what}, {budget:.0%} of {of} left", table, base, options.latency)


if __name__ == "__main__":
    main()
