"""CIFAR-10: read from any of its usual forms, kept on the device, and varied there.

All 60,000 images are 184 MB, so they go to the device once, as bytes. A batch is gathered, cropped,
mirrored and scaled there; no process loads anything while a network trains.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["MEAN", "STD", "Batches", "Images", "read"]

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PADDING = 4
FORMS = """\
  data_batch_1.bin …, test_batch.bin      the binary form
  data_batch_1 …, test_batch              the Python form (pickle)
  train/CLASS/*.png, test/CLASS/*.png     a folder for each class
  train_0.webp …, train_index.csv.gz      sheets of tiles with an index
It may also hold them in cifar-10-batches-bin/ or cifar-10-batches-py/, as the archives do."""


@dataclass(frozen=True)
class Images:
    """Images as bytes, `[n, 3, 32, 32]`, and their classes."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice | Tensor) -> Images:
        return Images(self.pixels[which], self.labels[which])

    def to(self, device: torch.device | str) -> Images:
        return Images(self.pixels.to(device), self.labels.to(device))

    def shuffled(self, seed: int = 0) -> Images:
        """Return the same images in an order that depends on the seed alone."""
        return self[torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))]

    @property
    def fingerprint(self) -> str:
        """Twelve digits that tell these images, in this order, from any others."""
        found = hashlib.sha256(self.pixels.cpu().numpy().tobytes())
        found.update(self.labels.cpu().numpy().tobytes())
        return found.hexdigest()[:12]

    def scaled(self) -> Tensor:
        """Return all images as numbers around zero, as a network reads them."""
        return scaled(self.pixels)


@dataclass(frozen=True)
class Batches:
    """Batches of a whole epoch, shuffled, cropped and mirrored on the device of the images."""

    images: Images
    size: int
    generator: torch.Generator
    varied: bool = True

    def __len__(self) -> int:
        return len(self.images) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.images.pixels.device
        order = torch.randperm(len(self.images), generator=self.generator, device=device)
        # windows[i, :, y, x] is image i, cropped at (y, x) out of its padded self. It is a view:
        # nothing is copied but the crops that a batch takes.
        padded = torch.nn.functional.pad(self.images.pixels, [PADDING] * 4)
        windows = padded.unfold(2, 32, 1).unfold(3, 32, 1)
        for chosen in order[: len(self) * self.size].split(self.size):
            pixels = self.images.pixels[chosen]
            if self.varied:
                y, x = self._drawn(2 * PADDING + 1, 2)
                (mirrored,) = self._drawn(2, 1)
                pixels = windows[chosen, :, y, x]
                pixels = torch.where(mirrored.bool()[:, None, None, None], pixels.flip(3), pixels)
            yield scaled(pixels), self.images.labels[chosen]

    def _drawn(self, below: int, rows: int) -> Tensor:
        device = self.images.pixels.device
        return torch.randint(below, (rows, self.size), generator=self.generator, device=device)


def scaled(pixels: Tensor) -> Tensor:
    """Return bytes as numbers with a mean of 0 and a deviation of 1 over CIFAR-10."""
    mean, std = (pixels.new_tensor(x, dtype=torch.float32)[:, None, None] for x in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def read(folder: Path) -> tuple[Images, Images]:
    """Return the images to train and to test with, in the order of the files."""
    for found in (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"):
        batches = [f"data_batch_{n}" for n in range(1, 6)]
        if (found / f"{batches[0]}.bin").exists():
            names = [f"{name}.bin" for name in batches]
            return _binary(found, names), _binary(found, ["test_batch.bin"])
        if (found / batches[0]).exists():
            return _pickled(found, batches), _pickled(found, ["test_batch"])
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _one_by_one(folder / "train"), _one_by_one(folder / "test")
    if (folder / "train_0.webp").exists():
        return _sheets(folder, "train"), _sheets(folder, "test")
    raise SystemExit(f"There is no CIFAR-10 in {folder}. It is read from one of:\n{FORMS}")


def _binary(folder: Path, names: list[str]) -> Images:
    table = np.concatenate([np.fromfile(folder / n, np.uint8).reshape(-1, 3073) for n in names])
    return Images(_pixels(table[:, 1:]), torch.from_numpy(table[:, 0].astype(np.int64)))


def _pickled(folder: Path, names: list[str]) -> Images:
    found = [pickle.loads((folder / name).read_bytes(), encoding="bytes") for name in names]
    pixels = np.concatenate([each[b"data"] for each in found])
    return Images(_pixels(pixels), torch.tensor([x for each in found for x in each[b"labels"]]))


def _pixels(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows).reshape(-1, 3, 32, 32))


def _one_by_one(folder: Path) -> Images:
    from PIL import Image

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(file, n) for n, each in enumerate(classes) for file in sorted(each.iterdir())]
    if not files:
        raise SystemExit(f"{folder} holds no folder with images. CIFAR-10 is read from:\n{FORMS}")
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in files])
    labels = torch.tensor([label for _, label in files])
    return Images(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels)


def _sheets(folder: Path, name: str) -> Images:
    from PIL import Image

    with gzip.open(folder / f"{name}_index.csv.gz", "rt") as file:
        labels = torch.tensor([int(row["label"]) for row in csv.DictReader(file)])
    sheets = sorted(folder.glob(f"{name}_*.webp"), key=lambda path: int(path.stem.split("_")[1]))
    pixels = np.concatenate(
        [
            np.asarray(Image.open(sheet).convert("RGB"))
            .reshape(50, 32, -1, 32, 3)
            .swapaxes(1, 2)
            .reshape(-1, 32, 32, 3)
            for sheet in sheets
        ]
    )
    if len(pixels) < len(labels):
        raise SystemExit(
            f"{name}_index.csv.gz names {len(labels)} images, and the sheets in {folder} hold "
            f"{len(pixels)}. One of {name}_*.webp is missing: copy all of them."
        )
    images = torch.from_numpy(pixels[: len(labels)]).permute(0, 3, 1, 2).contiguous()
    return Images(images, labels)
