"""What all stages share: images, trained networks that are kept, and results in a file."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import prune_core

from .data import Batches, read
from .hardware import Hardware
from .networks import build
from .pruning import Look
from .training import Recipe, accuracy, seconds_of_a_step, train

__all__ = ["SCALES", "Bench", "Scale"]

HELD_BACK = 2000
"""Training images that searches score with. Nothing trains with them."""
CALIBRATION = 8
"""Batches that a criterion may look at."""


@dataclass(frozen=True)
class Scale:
    """How much of everything there is."""

    name: str
    images: int | None  # to train with; all unless given
    narrower: int  # how many times narrower the networks are
    dense: Recipe
    again: Recipe  # after pruning
    trials: int  # of AMC
    effort: float = 1.0  # a factor of all epochs

    def epochs(self, recipe: Recipe) -> Recipe:
        return replace(recipe, epochs=recipe.epochs * self.effort)


SCALES = {
    "full": Scale(
        *("full", None, 1),
        Recipe(epochs=100, rate=0.4, batch=512),
        Recipe(epochs=60, rate=0.1, batch=256),
        trials=200,
    ),
    "small": Scale(
        *("small", 10_000, 2),
        Recipe(epochs=8, rate=0.1, batch=64),
        Recipe(epochs=2, rate=0.03, batch=64),
        trials=20,
    ),
}


@dataclass
class Bench:
    """A place to run experiments in."""

    data: Path
    out: Path
    scale: Scale
    hardware: Hardware
    results: Path
    dense_of: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.out, self.results.parent):
            folder.mkdir(parents=True, exist_ok=True)
        train_with, test = read(self.data)
        train_with = train_with.shuffled()  # some forms hold one class after the other
        self.fingerprint = f"{train_with.fingerprint}-{test.fingerprint}"
        last = None if self.scale.images is None else HELD_BACK + self.scale.images
        device = self.hardware.device
        self.held = train_with[:HELD_BACK].to(device)
        self.images = train_with[HELD_BACK:last].to(device)
        self.test = test.to(device)

    # ---- results

    def done(self) -> set[str]:
        """Return the keys of the results that are in the file."""
        if not self.results.exists():
            return set()
        # A run that was killed may have left half a line; what it was about is done again.
        return {row["key"] for row in rows_of(self.results) if "error" not in row}

    def key(self, stage: str, item: str, seed: int) -> str:
        return json.dumps([stage, item, seed, *self._what_counts()])

    def add(self, stage: str, item: str, seed: int, found: dict[str, Any]) -> dict[str, Any]:
        """Append a result to the file."""
        row = {"stage": stage, "item": item, "seed": seed, **found}
        row |= {"scale": self.scale.name, "effort": self.scale.effort, "tested": len(self.test)}
        row |= {"trained_with": len(self.images), "data": self.fingerprint}
        row |= {"hardware": self.hardware.name, **asdict(self.hardware)}
        row |= {"versions": versions("torch", "prune-core", "torch-pruning")}
        row |= {"date": time.strftime("%Y-%m-%d"), "key": self.key(stage, item, seed)}
        before = self.results.read_bytes() if self.results.exists() else b""
        with self.results.open("a") as file:
            broken = before and not before.endswith(b"\n")
            file.write(("\n" if broken else "") + json.dumps(row) + "\n")
        return row

    def _what_counts(self) -> list[Any]:
        """Return what a result depends on, the hardware apart."""
        scale = asdict(self.scale)
        return [self.fingerprint, *(scale[name] for name in sorted(scale))]

    # ---- networks

    def new(self, network: str) -> nn.Module:
        model = build(network, self.scale.narrower).to(self.hardware.device)
        return model.to(memory_format=torch.channels_last)

    def dense_file(self, network: str, seed: int) -> Path:
        """Return where a trained network is kept: its name says all that it came from."""
        recipe = self.scale.epochs(self.scale.dense)
        made_of = [network, seed, self.scale.narrower, len(self.images), asdict(recipe)]
        made_of += [self.fingerprint, self.hardware.precision]
        digits = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]
        return self.out / "dense" / f"{network.lower().replace(' ', '-')}-{digits}.pt"

    def dense(self, network: str, seed: int) -> nn.Module:
        """Return a trained network: the one that is kept, or a new one that is kept from now on."""
        path = self.dense_file(network, seed)
        torch.manual_seed(seed)
        model = self.new(network)
        if path.exists():
            kept = torch.load(path, map_location=self.hardware.device, weights_only=True)
            model.load_state_dict(kept["model"])
            self.dense_of[network] = kept["accuracy"]
            return model
        seconds = self.train(model, self.scale.dense, seed)
        self.dense_of[network] = reached = self.judge(model)
        path.parent.mkdir(exist_ok=True)
        kept = {"model": model.state_dict(), "accuracy": reached}
        torch.save(kept, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        flops, parameters = self.cost(model)
        self.add(
            *("dense", network, seed),
            {
                "network": network,
                "recovered": reached,
                "epochs": self.scale.epochs(self.scale.dense).epochs,
                "all_flops": flops,
                "all_parameters": parameters,
                "seconds": seconds,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            },
        )
        return model

    def train(self, model: nn.Module, recipe: Recipe, seed: int, **options: Any) -> float:
        recipe = self.scale.epochs(recipe)
        return train(model, self.images, recipe, self.hardware, seed=seed, **options)

    def judge(self, model: nn.Module, held: bool = False) -> float:
        return accuracy(model, self.held if held else self.test, self.hardware)

    def look(self, seed: int) -> Look:
        """Return the batches that criteria may look at, other ones for each seed."""
        generator = torch.Generator(self.hardware.device).manual_seed(1000 + seed)
        batches = iter(Batches(self.images, 64, generator, varied=False))
        return Look([batch for batch, _ in zip(batches, range(CALIBRATION), strict=False)])

    def cost(self, model: nn.Module) -> tuple[int, int]:
        """Return FLOPs and parameters."""
        example = self.test[:1].scaled()
        flops, parameters, _ = prune_core.count_flops_params(
            copy.deepcopy(model).eval(), example, verbose=False
        )
        return flops, parameters

    # ---- time

    def seconds_of(self, network: str, recipe: Recipe, epochs: float) -> float:
        """Return how long so many epochs take, measured on a few steps."""
        each = seconds_of_a_step(self.new(network), self.images, recipe, self.hardware)
        return each * replace(recipe, epochs=epochs).steps(len(self.images))


def rows_of(file: Path) -> Iterable[dict[str, Any]]:
    """Return the results in a file of JSON lines."""
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found | {"torch": torch.__version__}
