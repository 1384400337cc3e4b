"""The steps that a recipe asks for, in order."""

from __future__ import annotations

from dataclasses import dataclass

from prune_core.registry import get_entry
from prune_recipes.checks import removes
from prune_recipes.recipe import Algorithm, Recipe

__all__ = ["Step", "steps_of"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run.

    Attributes:
        name: Its folder, such as `"03-shrink"`.
        kind: What it does, such as `"shrink"`.
        at: Which of several of a kind, from 0.
    """

    name: str
    kind: str
    at: int = 0

    @property
    def changes(self) -> bool:
        """Whether the model is another one afterwards."""
        return self.kind != "export"


def steps_of(recipe: Recipe) -> list[Step]:
    """Return what a recipe asks for, in order."""
    kinds: list[tuple[str, int]] = [("dense", 0)]
    if recipe.train is not None:
        kinds.append(("train", 0))
    kinds += [("prune", at) for at in range(len(recipe.prune))]
    if recipe.shrink is not False and not all(map(_only_removes, recipe.prune)):
        kinds.append(("shrink", 0))
    kinds += [(key, 0) for key in ("finetune", "recover") if getattr(recipe, key) is not None]
    kinds += [("export", at) for at in range(len(recipe.export))]
    return [
        Step(f"{number:02}-{kind}", kind, at) for number, (kind, at) in enumerate(kinds, start=1)
    ]


def _only_removes(algorithm: Algorithm) -> bool:
    return removes(get_entry("pruner", algorithm.algorithm, "torch"))
