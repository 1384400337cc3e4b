"""An ALBERT that read 1.3 million chemical reactions, from the package rxnmapper.

It was trained to say which token of a reaction was masked. The reactions here are put together from
building blocks and the textbook's rules (an acid and an alcohol make an ester …), so there are
hundreds of thousands, written as SMILES.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

BATCH, LENGTH, TESTED = 16, 96, 256
LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"
MASKED = 0.15
TOKEN = re.compile(
    r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|%\d\d|\d"
)

# What hangs on the reacting group, written so that the group may stand in front or behind.
RESTS = (
    *("C", "CC", "CCC", "CC(C)", "CCCC", "CC(C)C", "C1CC1", "C1CCCC1", "C1CCCCC1", "COCC", "CCOC"),
    *("c1ccccc1", "c1ccc(C)cc1", "c1ccc(OC)cc1", "c1ccc(F)cc1", "c1ccc(Cl)cc1", "c1cccc(Cl)c1"),
    *("c1ccc(C#N)cc1", "c1ccc([N+](=O)[O-])cc1", "c1ccncc1", "c1cccnc1", "c1ccsc1", "c1ccoc1"),
    *("Cc1ccccc1", "CCc1ccccc1", "Cc1ccc(OC)cc1", "Cc1ccc(F)cc1", "CC(C)(C)", "C(F)(F)F"),
    *("c1ccc(C(F)(F)F)cc1", "c1ccc2ccccc2c1", "CN1CCOCC1", "CN(C)CC", "c1ccc(Br)cc1"),
)
AROMATIC = tuple(rest for rest in RESTS if rest.startswith("c1"))


def ester(r: Random) -> str:
    a, b = r.choice(RESTS), r.choice(RESTS)
    return f"O=C(O){a}.O{b}>>O=C(O{b}){a}"


def amide(r: Random) -> str:
    a, b = r.choice(RESTS), r.choice(RESTS)
    acid = r.choice((f"O=C(O){a}", f"O=C(Cl){a}"))
    return f"{acid}.N{b}>>O=C(N{b}){a}"


def saponification(r: Random) -> str:
    a, b = r.choice(RESTS), r.choice(("C", "CC"))
    return f"O=C(O{b}){a}.[Na+].[OH-]>>O=C(O){a}"


def coupling(r: Random) -> str:
    """Suzuki's: the halogen of one ring and the boron of another make way for a bond."""
    a, b, halogen = r.choice(AROMATIC), r.choice(AROMATIC), r.choice(("Br", "I", "Cl"))
    first = b.replace("1", "3")  # a ring number that is not open where the bond begins
    return f"{halogen}{a}.OB(O){b}>>c1(-{first}){a.removeprefix('c1')}"


def ether(r: Random) -> str:
    a, b, halogen = r.choice(RESTS), r.choice(RESTS), r.choice(("Br", "I", "Cl"))
    return f"O{a}.{halogen}C{b}>>O({a})C{b}"


def reductive_amination(r: Random) -> str:
    a, b = r.choice(RESTS), r.choice(RESTS)
    return f"O=C{a}.N{b}.[BH4-].[Na+]>>C(N{b}){a}"


def protection(r: Random) -> str:
    a = r.choice(RESTS)
    return f"N{a}.CC(C)(C)OC(=O)OC(=O)OC(C)(C)C>>N(C(=O)OC(C)(C)C){a}"


def sulfonamide(r: Random) -> str:
    a, b = r.choice(RESTS), r.choice(RESTS)
    return f"O=S(=O)(Cl){a}.N{b}>>O=S(=O)(N{b}){a}"


REACTIONS = (
    *(ester, amide, saponification, coupling, ether, reductive_amination, protection, sulfonamide),
)


def folder() -> Path:
    spec = importlib.util.find_spec("rxnmapper")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("This benchmark needs the weights in rxnmapper: pip install rxnmapper")
    models = Path(spec.submodule_search_locations[0]) / "models/transformers"
    return next(models.iterdir())


class Reactions:
    """Masked tokens of reactions; tokens of the product can mostly be read off the reactants."""

    name: ClassVar[str] = "rxnmapper ALBERT"
    metric: ClassVar[str] = "share of masked tokens that are guessed"
    higher_is_better: ClassVar[bool] = True
    exclude: ClassVar[tuple[str, ...]] = ("predictions.decoder",)
    fixed_for_others: ClassVar[tuple[str, ...]] = ()
    of_all_flops: ClassVar[bool] = False
    feed_forward: ClassVar[tuple[str, ...]] = (f"{LAYER}.ffn",)
    linear: ClassVar[tuple[str, ...]] = (
        *(f"{LAYER}.attention.{name}" for name in ("query", "key", "value", "dense")),
        *(f"{LAYER}.{name}" for name in ("ffn", "ffn_output")),
    )
    calibration: ClassVar[int] = 8
    learning_rate: ClassVar[float] = 1e-3
    compare: ClassVar[str] = "kl"

    def __init__(self) -> None:
        words = (folder() / "vocab.txt").read_text().splitlines()
        self._number = {word: number for number, word in enumerate(words)}
        numbers = Random(2**31 - 1)
        self._tested = [self._batch(numbers) for _ in range(TESTED // BATCH)]

    def model(self) -> nn.Module:
        from transformers import AlbertConfig, AlbertForMaskedLM

        config = AlbertConfig.from_pretrained(folder())
        model = AlbertForMaskedLM(config)
        weights = torch.load(folder() / "pytorch_model.bin", map_location="cpu", weights_only=True)
        missing, _ = model.load_state_dict(weights, strict=False)
        lost = [name for name in missing if "position_ids" not in name and "decoder" not in name]
        if lost:
            raise SystemExit(f"The weights of rxnmapper lack {lost}.")
        model.tie_weights()
        eval_model: nn.Module = model.eval()
        return eval_model

    def example(self) -> dict[str, Tensor]:
        batch = self._batch(Random(0))
        return {name: batch[name][:2] for name in ("input_ids", "attention_mask")}

    def batches(self, seed: int) -> Iterator[dict[str, Tensor]]:
        numbers = Random(seed)
        while True:
            yield self._batch(numbers)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = self._logits(model, batch)
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    @torch.no_grad()
    def quality(self, model: nn.Module) -> float:
        right = total = 0
        for batch in self._tested:
            asked = batch["labels"] >= 0
            found = self._logits(model, batch).argmax(-1)
            right += int((found == batch["labels"])[asked].sum())
            total += int(asked.sum())
        return right / total

    def _logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        found: Any = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits: Tensor = found.logits
        return logits

    def _batch(self, numbers: Random) -> dict[str, Tensor]:
        ids = torch.zeros(BATCH, LENGTH, dtype=torch.long)
        labels = torch.full((BATCH, LENGTH), -100)
        for row in range(BATCH):
            tokens = ["[CLS]", *TOKEN.findall(numbers.choice(REACTIONS)(numbers)), "[SEP]"]
            known = [self._number.get(token, self._number["[UNK]"]) for token in tokens[:LENGTH]]
            ids[row, : len(known)] = torch.tensor(known)
            for at in range(1, len(known) - 1):
                if numbers.random() < MASKED:
                    labels[row, at] = ids[row, at]
                    ids[row, at] = self._number["[MASK]"]
        longest = int((ids != 0).sum(1).max())
        ids, labels = ids[:, :longest], labels[:, :longest]
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}
