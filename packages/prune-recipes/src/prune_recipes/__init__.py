"""Pruning by recipe: one YAML file says what to do, and one command does it.

`prune run recipe.yaml --output DIR` prunes a model, makes it smaller, trains and exports it, and
leaves in DIR all that is needed to do it again. Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_recipes.errors import RecipeError as RecipeError
    from prune_recipes.reader import read_recipe as read_recipe
    from prune_recipes.recipe import Recipe as Recipe
    from prune_recipes.running import run_recipe as run_recipe
    from prune_recipes.schema import recipe_schema as recipe_schema

_HOME_OF = {
    "Recipe": "recipe",
    "RecipeError": "errors",
    "read_recipe": "reader",
    "recipe_schema": "schema",
    "run_recipe": "running",
}

__all__ = ["Recipe", "RecipeError", "read_recipe", "recipe_schema", "run_recipe"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'prune_recipes' has no attribute {name!r}")
    return getattr(import_module(f"prune_recipes.{_HOME_OF[name]}"), name)
