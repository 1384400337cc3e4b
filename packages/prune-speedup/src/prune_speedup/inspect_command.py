"""`prune inspect`: what of a model can be removed; or what a recipe would do.

Of recipes, prune-recipes knows. It is imported when a recipe is given, and not before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prune_core.cli.output import AsJson, print_json
from prune_core.errors import ConfigError, MissingDependencyError, PruneError
from prune_core.reference import Reference
from prune_core.registry import framework_of, get_engine

if TYPE_CHECKING:
    from prune_speedup.engine.units import Units

__all__ = ["command"]

WITH_FRAMEWORK = {
    "torch": "'prune-speedup[torch]'",
    "keras": "prune-tf tensorflow-cpu",
    "tensorflow": "prune-tf tensorflow-cpu",
}
"""What brings a module that a user's own imports."""
SHAPE = re.compile(r"(?P<shape>\d+(,\d+)*)(:(?P<dtype>\w+))?")


def _recipe_files(incomplete: str) -> Iterator[str]:
    try:
        from prune_recipes.completing import recipe_files
    except ImportError:
        return
    yield from recipe_files(incomplete)


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="What makes the model, without arguments: package.module:name. Or a file of "
            "Keras, model.keras. Or a recipe, recipe.yaml, of which no code runs.",
            autocompletion=_recipe_files,
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="Shape of an input, such as 1,3,224,224, or 1,16:int64 for whole numbers. "
            "Once for each input. Most Keras models need none.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which slices of a model can only be removed together; or what a recipe would do."""
    if model.endswith((".yaml", ".yml")):
        _show_recipe(model, as_json=as_json)
        return
    # Parsed first, so that a mistyped shape does not cost an import of a framework.
    found = _units(model, [_parsed(text) for text in inputs or ()])
    if as_json:
        print_json(
            {
                "groups": [
                    {
                        "name": group.name,
                        "units": len(group),
                        "axes": [{"tensor": name, "axis": axis} for name, axis in group.axes],
                    }
                    for group in found.groups
                ],
                "unknown": found.unknown,
                "unread": found.unread,
            }
        )
    else:
        print(found.tree())


def _show_recipe(path: str, *, as_json: bool) -> None:
    try:
        from prune_recipes.inspecting import show
    except ImportError as error:
        if error.name != "prune_recipes":
            raise
        raise MissingDependencyError(
            f"{path} is a recipe, which prune-recipes reads: `pip install prune-recipes`."
        ) from None
    show(path, as_json=as_json)


def _parsed(text: str) -> tuple[tuple[int, ...], str]:
    match = SHAPE.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ConfigError(
            f"--input is {text!r}; it must be a shape such as 1,3,224,224, with a type after it "
            "where the input is not of floating point, such as 1,16:int64."
        )
    return tuple(int(size) for size in match["shape"].split(",")), match["dtype"] or "float32"


def _made(target: str) -> tuple[Any, str]:
    """Return what is inspected, and the framework that it is of."""
    if target.endswith(".keras"):
        return _engine("keras", target).load_pruned(target, compile=False), "keras"
    sys.path.insert(0, "")  # a module in the folder where one stands can be named as it is
    try:
        made = Reference(target).load()
        model = made if framework_of(made) and not isinstance(made, type) else made()
    except PruneError:
        raise
    except ModuleNotFoundError as error:
        if error.name not in WITH_FRAMEWORK:
            raise ConfigError(f"{target!r} made no model: {error}") from error
        raise MissingDependencyError(
            f"{target!r} needs {error.name}: `pip install {WITH_FRAMEWORK[error.name]}`."
        ) from None
    except Exception as error:
        raise ConfigError(f"{target!r} made no model: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
    framework = framework_of(model)
    if not framework:
        raise ConfigError(
            f"{target!r} made a {type(model).__name__}, which is no torch module and no "
            "Keras model."
        )
    return model, framework


def _engine(framework: str, target: str) -> Any:
    return get_engine(framework, wanted=f"`prune inspect {target}`")


def _units(target: str, shapes: list[tuple[tuple[int, ...], str]]) -> Units:
    model, framework = _made(target)
    if framework == "torch" and not shapes:
        raise ConfigError("Say the shape of an input of the model, such as --input 1,3,224,224.")
    zeros = _zeros_of_torch if framework == "torch" else _zeros_of_numpy
    inputs = tuple(zeros(*shape) for shape in shapes)
    if framework == "torch":
        return cast("Units", _engine(framework, target).units(model, inputs))
    # A Keras model with one input takes it as it is, and says by itself what it takes.
    given = inputs[0] if len(inputs) == 1 else inputs or None
    return cast("Units", _engine(framework, target).units(model, given))


def _zeros_of_torch(shape: tuple[int, ...], name: str) -> Any:
    import torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"--input has the type {name!r}; torch has no such type.")
    return torch.zeros(shape, dtype=dtype)


def _zeros_of_numpy(shape: tuple[int, ...], name: str) -> Any:
    import numpy as np

    try:
        return np.zeros(shape, name)
    except TypeError:
        raise ConfigError(f"--input has the type {name!r}; numpy has no such type.") from None
