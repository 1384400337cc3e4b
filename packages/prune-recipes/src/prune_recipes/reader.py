"""From a file to a checked recipe."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from prune_core.errors import did_you_mean, nearest, shown
from prune_recipes.checks import check
from prune_recipes.errors import Mistake, RecipeError
from prune_recipes.recipe import Recipe
from prune_recipes.text import Place, Text, read_text

__all__ = ["parse_recipe", "read_recipe"]


def read_recipe(path: str | PathLike[str]) -> Recipe:
    """Read a recipe and check it; none of the code that it names is imported.

    Raises:
        RecipeError: With the line and a sentence for everything that is wrong.

    Example:
        ```python
        recipe = prune_recipes.read_recipe("recipe.yaml")
        print(recipe.prune[0].algorithm)
        ```
    """
    return parse_recipe(read_text(path))


def parse_recipe(text: Text) -> Recipe:
    """Check what a file says."""
    if not isinstance(text.data, dict):
        raise text.refuse(
            1,
            f"a recipe is a mapping with the keys model, inputs and prune, not {shown(text.data)}.",
        )
    try:
        recipe = Recipe.model_validate(text.data)
    except ValidationError as error:
        raise RecipeError(text.path, [*_mistakes(text, error)]) from None
    found = [text.mistake(place, said, key=key) for place, said, key in check(recipe)]
    if found:
        raise RecipeError(text.path, found)
    return recipe


# --- pydantic's errors in our words -------------------------------------------------------------

_MUST: dict[str, str] = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping of names and values",
    "list_type": "a list: write a - before each of its entries",
    "model_type": "a mapping of names and values",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "finite_number": "a finite number",
    "string_too_short": "a text that is not empty",
    "too_short": "at least one entry long",
}
_PATTERNS = {
    "call": "of the form package.module:name",
    "file": "the name of a file, of letters, digits, -, _ and ., without a folder",
    "device": "a device such as cpu, cuda or cuda:1",
}


def _mistakes(text: Text, error: ValidationError) -> Iterator[Mistake]:
    seen: set[tuple[int, str]] = set()
    for each in error.errors(include_url=False):
        place = _place(text.data, each["loc"])
        key = each["type"] in ("extra_forbidden",)
        mistake = text.mistake(place, _said(text, each, place), key=key)
        if (mistake.line, mistake.said) not in seen:
            seen.add((mistake.line, mistake.said))
            yield mistake


def _place(data: Any, loc: tuple[str | int, ...]) -> Place:
    """Return what of pydantic's location is in the file; it also names types and branches."""
    place: Place = ()
    for part in loc:
        in_list = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if in_list or (isinstance(data, dict) and part in data):
            data = data[part]
            place = (*place, part)
    return place


def _said(text: Text, each: Any, place: Place) -> str:
    kind, value, loc = each["type"], each["input"], each["loc"]
    name = _name(place)
    if kind == "extra_forbidden":
        key, known = str(loc[-1]), _keys(loc[:-1])
        where = f"{_name(place[:-1])} has" if place[:-1] else "the recipe has"
        return f"{where} {shown(key)}, which is no key there.{nearest(key, known, limit=20)}"
    if kind == "missing":
        where = name if place else "the recipe"
        return f"{where} has no {str(loc[-1])!r}, which is needed."
    if kind == "value_error":
        return f"{name or 'the recipe'} {each['ctx']['error']}."
    if kind == "string_pattern_mismatch":
        must = _PATTERNS.get(str(loc[-1]), _PATTERNS["call"])
    else:
        must = _MUST.get(kind, each["msg"]).format(**each.get("ctx", {}))
    close = ""
    if kind == "literal_error" and isinstance(value, str):
        close = did_you_mean(value, must.replace("'", "").replace(" or ", ", ").split(", "))
    return f"{name or 'the recipe'} is {shown(value)}; it must be {must}.{close}"


def _name(place: Place) -> str:
    """Write a place as people do: prune[0].options.mode."""
    name = ""
    for part in place:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _keys(loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the model at a location."""
    model: type[BaseModel] = Recipe
    for part in loc:
        for name, field in model.model_fields.items():
            if part in (name, field.alias) and (inner := _model_in(field.annotation)) is not None:
                model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
