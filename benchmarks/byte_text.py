"""The bytes of a text, as something for a small language model to learn."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

LENGTH = 128
"""How many bytes a model sees at a time."""


class Text:
    """The bytes of a text: nine tenths to learn from, one to be judged by."""

    def __init__(self, path: Path) -> None:
        data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).long()
        self.train, self.held_out = data.split([len(data) * 9 // 10, -(-len(data) // 10)])

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        draws = torch.Generator().manual_seed(seed)
        while True:
            starts = torch.randint(len(self.train) - LENGTH, (size,), generator=draws)
            yield torch.stack([self.train[start : start + LENGTH] for start in starts])
