"""What a recipe would do, in words; none of its code is imported."""

from __future__ import annotations

from os import PathLike

from prune_core.cli.output import print_json
from prune_recipes.code import code_of
from prune_recipes.plan import steps_of
from prune_recipes.reader import parse_recipe
from prune_recipes.recipe import Algorithm, Recipe
from prune_recipes.text import read_text

__all__ = ["said_of", "show"]


def show(path: str | PathLike[str], *, as_json: bool = False) -> None:
    """Print what a run of a recipe would do, and which code it would run."""
    recipe = parse_recipe(read_text(path))
    steps, code = said_of(recipe), code_of(recipe)
    if as_json:
        print_json(
            {
                "steps": [{"step": name, "what": what} for name, what in steps],
                "code": [{"what": each.what, "used_for": each.used_for} for each in code],
                "recipe": recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
            }
        )
        return
    width = max(len(name) for name, _ in steps)
    print("A run of this recipe would")
    for name, what in steps:
        print(f"  {name:{width}}  {what}")
    print("\nIt would run this code:" if code else "\nIt names no code.")
    for each in code:
        print(f"  {each}")


def said_of(recipe: Recipe) -> list[tuple[str, str]]:
    """Return what each step of a recipe does."""
    return [(step.name, _said(recipe, step.kind, step.at)) for step in steps_of(recipe)]


def _said(recipe: Recipe, kind: str, at: int) -> str:
    match kind:
        case "dense":
            model = recipe.model
            weights = f", with the weights of {model.weights}" if model.weights else ""
            return f"make the model: {model.call or model.huggingface or model.file}{weights}"
        case "train" | "finetune":
            training = getattr(recipe, kind)
            epochs = training.epochs or 1
            return f"train it: {training.call}, {epochs} epoch{'s' if epochs > 1 else ''}"
        case "prune":
            return _pruning(recipe.prune[at])
        case "shrink":
            return "remove what is masked, and compare with the masked model"
        case "recover":
            return "train it with the dense model as its teacher"
    export = recipe.export[at]
    return f"write {export.file or f'model.{export.format}'}"


def _pruning(said: Algorithm) -> str:
    if said.config_list is not None:
        much = f"by {len(said.config_list)} rule{'s' if len(said.config_list) > 1 else ''}"
    elif said.target is not None:
        much = "to " + ", ".join(f"{share:g} of the {cost}" for cost, share in said.target.items())
    elif said.count is not None:
        much = f"{said.count} of them"
    else:
        much = f"{said.sparsity:.0%}"
    names = (
        said.reconstruct if isinstance(said.reconstruct, str) else ", ".join(said.reconstruct or ())
    )
    return f"{said.algorithm}, {much}" + (f", then {names}" if names else "")
