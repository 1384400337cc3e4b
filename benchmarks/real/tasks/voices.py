"""Resemblyzer's speaker encoder, three layers of LSTM, judged on voices of eSpeak NG.

It maps a sentence to a direction; sentences of one speaker should point the same way. eSpeak NG
speaks with many voices, and says what it is told, so there are as many pairs as one likes. The
program `espeak-ng` has to be installed, as it is in every Linux distribution.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import wave
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

RATE, WINDOW, HOP, MELS, FRAMES = 16_000, 400, 160, 40, 160
VARIANTS = (*(f"m{n}" for n in range(1, 9)), *(f"f{n}" for n in range(1, 6)), "croak", "whisper")
LANGUAGES = ("en-us", "en-gb-scotland", "de", "fr-fr", "es", "it", "pl", "sv")
PITCHES = (35, 55)
SENTENCES_EACH = 8
WORDS = (
    *("river", "mountain", "paper", "window", "yellow", "garden", "seven", "morning", "letter"),
    *("station", "orange", "bridge", "winter", "kitchen", "music", "doctor", "table", "silver"),
    *("number", "valley", "summer", "island", "button", "pocket", "ladder", "mirror", "forest"),
)
BATCH = 64


class Encoder(nn.Module):
    """The network of Resemblyzer: LSTM, a linear layer, and a direction."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.relu = nn.ReLU()

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        found = self.relu(self.linear(hidden[-1]))
        return found / found.norm(dim=1, keepdim=True)


def weights() -> Path:
    spec = importlib.util.find_spec("resemblyzer")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("This benchmark needs the weights in Resemblyzer: pip install Resemblyzer")
    return Path(spec.submodule_search_locations[0]) / "pretrained.pt"


def mel_filters() -> Tensor:
    """Slaney's filters, (MELS, WINDOW // 2 + 1): triangles of equal area, even on the mel scale."""

    def to_mel(hz: np.ndarray) -> np.ndarray:
        logarithmic = 15 + np.log(np.maximum(hz, 1000.0) / 1000.0) / (np.log(6.4) / 27)
        return np.where(hz < 1000, hz * 3 / 200, logarithmic)

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.log(6.4) / 27) * (mel - 15)))

    edges = to_hz(np.linspace(0, float(to_mel(np.array(RATE / 2.0))), MELS + 2))
    hz = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters).float()


def spectrogram(sound: Tensor) -> Tensor:
    """(samples,) to (frames, MELS), the power in each filter."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(sound, WINDOW, HOP, window=window, return_complex=True).abs() ** 2
    return (mel_filters() @ spectrum).T


@cache
def spoken(language: str, variant: str, pitch: int, text: str) -> Tensor:
    """The spectrogram of a text as one voice says it."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("This benchmark lets espeak-ng speak: apt install espeak-ng")
    command = ("espeak-ng", "-v", f"{language}+{variant}", "-p", str(pitch), "--stdout", text)
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(BytesIO(wav)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    sound = torch.from_numpy(samples / 32768).float()
    wanted = int(len(sound) * RATE / rate)
    resampled = nn.functional.interpolate(sound[None, None], wanted, mode="linear")[0, 0]
    # Resemblyzer makes every sound as loud as −30 dBFS.
    loudness = 10 ** (-30 / 20) / resampled.pow(2).mean().sqrt()
    return spectrogram(resampled * loudness)


def utterances(numbers: Random, speakers: list[tuple[str, str, int]]) -> tuple[Tensor, Tensor]:
    """Pieces of 1.6 seconds and who says them."""
    pieces, who = [], []
    for number, speaker in enumerate(speakers):
        while len(pieces) < (number + 1) * SENTENCES_EACH:
            said = spoken(*speaker, " ".join(numbers.choices(WORDS, k=9)))
            for start in range(0, len(said) - FRAMES, FRAMES):
                pieces.append(said[start : start + FRAMES])
                who.append(number)
        del pieces[(number + 1) * SENTENCES_EACH :], who[(number + 1) * SENTENCES_EACH :]
    return torch.stack(pieces), torch.tensor(who)


def equal_error_rate(found: Tensor, who: Tensor) -> float:
    """Where as many pairs of one speaker are told apart as pairs of two are taken for one."""
    alike = found @ found.T
    upper = torch.triu(torch.ones_like(alike, dtype=torch.bool), 1)
    same = who[:, None] == who[None]
    yes, no = alike[upper & same].sort().values, alike[upper & ~same].sort().values
    missed = torch.arange(len(yes)) / len(yes)
    wrong = 1 - torch.searchsorted(no, yes) / len(no)
    at = int((missed - wrong).abs().argmin())
    return float((missed[at] + wrong[at]) / 2)


class Voices:
    """Telling voices apart; calibration and tuning use voices that the test does not have."""

    name: ClassVar[str] = "Resemblyzer LSTM"
    metric: ClassVar[str] = "equal error rate"
    higher_is_better: ClassVar[bool] = False
    exclude: ClassVar[tuple[str, ...]] = ("linear",)
    fixed_for_others: ClassVar[tuple[str, ...]] = ()
    of_all_flops: ClassVar[bool] = True
    feed_forward: ClassVar[tuple[str, ...]] = ()
    linear: ClassVar[tuple[str, ...]] = ()
    calibration: ClassVar[int] = 8
    learning_rate: ClassVar[float] = 1e-3
    compare: ClassVar[str] = "mse"

    def __init__(self) -> None:
        every = [(la, v, p) for la in LANGUAGES for v in VARIANTS for p in PITCHES]
        Random(0).shuffle(every)
        self._tested = utterances(Random(2**31 - 1), every[:40])
        self._others = utterances(Random(1), every[40:104])
        with torch.no_grad():
            self._wanted = self.model()(self._others[0])

    def model(self) -> nn.Module:
        model = Encoder()
        saved = torch.load(weights(), map_location="cpu", weights_only=True)["model_state"]
        model.load_state_dict({n: w for n, w in saved.items() if n in model.state_dict()})
        return model.eval()

    def example(self) -> Tensor:
        return self._others[0][:2]

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        pieces = self._others[0]
        while True:
            chosen = torch.randint(len(pieces), (BATCH,), generator=generator)
            yield pieces[chosen], self._wanted[chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """How far directions are from those of the whole network, whose own loss needs speakers."""
        pieces, wanted = batch
        return (1 - (model(pieces) * wanted).sum(1)).mean()

    @torch.no_grad()
    def quality(self, model: nn.Module) -> float:
        pieces, who = self._tested
        found = torch.cat([model(part) for part in pieces.split(BATCH)])
        return equal_error_rate(found, who)
