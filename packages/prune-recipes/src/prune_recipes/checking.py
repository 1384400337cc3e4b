"""`prune check`: the proof once more, from the files of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prune_core.errors import ConfigError
from prune_recipes import loading
from prune_recipes.code import made, modules_beside
from prune_recipes.folder import RunFolder
from prune_recipes.reader import parse_recipe
from prune_recipes.recipe import Shrink
from prune_recipes.steps import Run
from prune_recipes.text import read_text
from prune_recipes.training import seed_of
from prune_speedup.torch.proof.compare import compare
from prune_speedup.torch.record.inputs import call
from prune_toolkit.running.random_state import seeded

__all__ = ["Checked", "check_run", "opened"]

_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Checked:
    """What both models returned.

    Attributes:
        inputs: What they were run on.
        difference: How far apart they are, relative to the largest number of the output.
        allowed: How far they may be.
    """

    inputs: str
    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether that is rounding."""
        return self.difference <= self.allowed


def opened(folder: Path) -> Run:
    """Open the folder of a run that has begun.

    Paths and modules of the recipe are looked for where the recipe was.
    """
    files = RunFolder(folder)
    there = files.run
    if there is None:
        raise ConfigError(f"{folder} holds no run of a recipe: prune run makes such folders.")
    recipe = parse_recipe(read_text(folder / "recipe.yaml"))
    return Run(recipe, Path(there["beside"]), files)


def check_run(run: Run) -> list[Checked]:
    """Build the masked and the small model from the files of a run, and compare what they return.

    The small model is the one from before it was trained again; afterwards the two differ, as they
    should.

    Raises:
        ConfigError: The run has not come so far, or made nothing smaller by masks.
    """
    shrunk = run.step_of("shrink")
    if shrunk is None:
        raise ConfigError(f"The recipe of {run.folder.path} has no shrink: nothing to compare.")
    if not run.folder.is_done(shrunk.name):
        raise ConfigError(f"{run.folder.path} has not come to {shrunk.name} yet: let it run on.")
    said = run.recipe.shrink if isinstance(run.recipe.shrink, Shrink) else Shrink()
    with modules_beside(run.beside), torch.no_grad():
        masked, small = run.model_after(run.before(shrunk)), run.model_after(shrunk)
        found = []
        for name, inputs in _inputs(run):
            difference = compare(call(masked, inputs), call(small, inputs), said.tolerance)
            found.append(Checked(name, difference.relative, difference.tolerance))
    return found


def _inputs(run: Run) -> Iterator[tuple[str, Any]]:
    yield "the inputs of the recipe", run.inputs
    if run.recipe.data is None:
        return
    with seeded(seed_of(run.recipe.seed, "data")):
        data = made(run.recipe.data.call, run.recipe.data.arguments, "data")
    if isinstance(data, torch.Tensor | Mapping):
        return
    for number, batch in zip(range(_BATCHES), data, strict=False):
        yield f"batch {number} of its data", loading.on_device(batch, run.recipe.device)
