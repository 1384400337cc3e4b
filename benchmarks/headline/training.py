"""One training loop for everything: dense networks, pruned ones, and masked ones."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Batches, Images
from .hardware import Hardware

__all__ = ["Recipe", "accuracy", "seconds_of_a_step", "train"]

WARM_UP = 3
"""Steps before anything is captured or timed."""


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum, and a rate that rises for a moment and then falls along a cosine."""

    epochs: float
    rate: float = 0.1
    batch: int = 128
    decay: float = 5e-4
    rising: float = 0.1
    momentum: float = 0.9

    def steps(self, images: int) -> int:
        return max(1, round(self.epochs * (images // self.batch)))

    def rate_at(self, step: int, steps: int) -> float:
        rising = self.rising * steps
        if step < rising:
            return self.rate * (step + 1) / (rising + 1)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


Penalty = Callable[[nn.Module], Tensor]
Notice = Callable[[int], object]


def train(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    hardware: Hardware,
    *,
    seed: int,
    penalty: Penalty | None = None,
    after_backward: Callable[[], object] | None = None,
    before_epoch: Notice | None = None,
    steps: int | None = None,
    counter: Callable[[int], object] = range,
    still: bool = True,
) -> float:
    """Train a model in place, and return the seconds that it took.

    Args:
        model: The model, on the device of the images.
        images: What to train with.
        recipe: How.
        hardware: Where.
        seed: For order, crops and mirrors.
        penalty: Added to the loss.
        after_backward: Called before the optimizer steps.
        before_epoch: Called with the number of the epoch.
        steps: How many steps to take of those that the recipe has; all unless given.
        counter: What the loop goes through, instead of `range(steps)`.
        still: Whether nothing but weights changes from step to step, so that a step can be
            captured; a gradual schedule changes masks.
    """
    generator = torch.Generator(images.pixels.device).manual_seed(seed)
    batches = Batches(images, recipe.batch, generator)
    if not len(batches):
        raise SystemExit(f"{len(images)} images make no batch of {recipe.batch}. Raise --images.")
    total = recipe.steps(len(images))
    rate = torch.zeros((), device=images.pixels.device)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=rate,
        momentum=recipe.momentum,
        weight_decay=recipe.decay,
        nesterov=True,
        fused=True,
    )
    called = torch.compile(model) if hardware.compiled else model

    def step(pixels: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        with hardware.autocast():
            loss = F.cross_entropy(called(pixels), labels)
            if penalty is not None:
                loss = loss + penalty(model)
        loss.backward()
        if after_backward is not None:
            after_backward()
        optimizer.step()
        return loss.detach()

    model.train()
    capture = hardware.graphs and still and after_backward is None
    take: Callable[[Tensor, Tensor], Tensor] = step
    hardware.synchronize()
    began = time.perf_counter()
    stream = iter(())
    for number in counter(total if steps is None else steps):
        if number % len(batches) == 0 and before_epoch is not None:
            before_epoch(number // len(batches))
        batch = next(stream, None)
        if batch is None:
            stream = iter(batches)
            batch = next(stream)
        pixels, labels = batch
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        if capture:
            take, capture = _captured(step, pixels, labels), False
        rate.fill_(recipe.rate_at(number, total))
        loss = take(pixels, labels)
    hardware.synchronize()
    if not torch.isfinite(loss):
        warnings.warn("The loss is no number any more: this training has failed.", stacklevel=2)
    return time.perf_counter() - began


def _captured(step: Callable[[Tensor, Tensor], Tensor], pixels: Tensor, labels: Tensor):
    """Return what replays a step on a GPU; the step itself if it cannot be captured.

    The steps before it, which let kernels be chosen and memory be found, are taken with a rate of
    zero: weights stay, and only the statistics of the normalisations have seen the batch.
    """
    pixels, labels = pixels.clone(), labels.clone()
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(pixels, labels)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step(pixels, labels)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"No CUDA graph, so steps are taken one by one: {reason}", stacklevel=3)
        return step

    def replay(new_pixels: Tensor, new_labels: Tensor) -> Tensor:
        pixels.copy_(new_pixels)
        labels.copy_(new_labels)
        graph.replay()
        return loss

    return replay


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, hardware: Hardware, batch: int = 1000) -> float:
    """Return the share of images whose class is found."""
    model.eval()
    right = torch.zeros((), device=images.pixels.device)
    for begin in range(0, len(images), batch):
        part = images[begin : begin + batch]
        with hardware.autocast():
            found = model(part.scaled().contiguous(memory_format=torch.channels_last))
        right += (found.argmax(1) == part.labels).sum()
    return float(right) / len(images)


def seconds_of_a_step(
    model: nn.Module, images: Images, recipe: Recipe, hardware: Hardware, steps: int = 5
) -> float:
    """Return how long a step takes, measured on a few, with a model that is not needed any more."""
    train(model, images, recipe, hardware, seed=0, steps=WARM_UP)
    few = train(model, images, recipe, hardware, seed=0, steps=1)
    return max(0.0, train(model, images, recipe, hardware, seed=0, steps=steps + 1) - few) / steps
