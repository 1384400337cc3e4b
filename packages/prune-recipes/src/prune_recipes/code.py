"""The code that a recipe names: what it is, whether it may run, and running it.

A recipe is data, but it names functions, and a run imports and calls them. So before anything is
imported, whoever runs the recipe sees them listed and agrees.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prune_core.callables import UserFunction
from prune_core.errors import ConfigError, PruneError
from prune_core.reference import Reference
from prune_recipes.recipe import Call, Recipe

__all__ = ["Code", "code_of", "function_of", "load", "made", "modules_beside", "sources_of"]

UNPICKLED = "model: the file is unpickled"
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code that a recipe runs.

    Attributes:
        what: The name of it, or the file that holds it.
        used_for: The key of the recipe that names it.
    """

    what: str
    used_for: str

    def __str__(self) -> str:
        return f"{self.what} ({self.used_for})"


def code_of(recipe: Recipe) -> list[Code]:
    """List all code that a run of a recipe imports or loads; none of it is."""
    found: list[Code] = []
    if recipe.model.call is not None:
        found.append(Code(recipe.model.call, "model"))
    if recipe.model.file is not None:
        found.append(Code(recipe.model.file, UNPICKLED))
    if recipe.inputs.call is not None:
        found.append(Code(recipe.inputs.call, "inputs"))
    for key in ("train", "calibrate", "data", "evaluate", "finetune"):
        call: Call | None = getattr(recipe, key)
        if call is not None:
            found.append(Code(call.call, key))
        optimizer = getattr(call, "optimizer", None)
        if optimizer is not None:
            found.append(Code(optimizer.call, f"{key}.optimizer"))
    if recipe.recover is not None:
        found.append(Code(recipe.recover.data.call, "recover.data"))
        if recipe.recover.validation is not None:
            found.append(Code(recipe.recover.validation.call, "recover.validation"))
    return found


def sources_of(recipe: Recipe, beside: Path) -> dict[str, str]:
    """Import what a recipe names, and return a digest of each source file that lies there.

    Those are the files beside the recipe and where one stands, with what they import from there.
    Files of installed packages are not among them: their versions are written down.

    Returns:
        `{file: digest}`, such as `{"digits.py": "0f3c…"}`.
    """
    for each in code_of(recipe):
        if each.used_for != UNPICKLED:
            load(each.what, each.used_for)
    named = dict.fromkeys(getattr(module, "__file__", None) for module in [*sys.modules.values()])
    # The program that was started is no part of the recipe, whatever else it is known as.
    named.pop(getattr(sys.modules["__main__"], "__file__", None), None)
    files = [Path(file) for file in named if file]
    library = sysconfig.get_path("stdlib")
    found: dict[str, str] = {}
    for place in (beside.resolve(), Path.cwd()):
        for file in files:
            installed = file.is_relative_to(library) or not _INSTALLED.isdisjoint(file.parts)
            if file.is_relative_to(place) and not installed and file.is_file():
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                found.setdefault(str(file.relative_to(place)), digest)
    return dict(sorted(found.items()))


@contextmanager
def modules_beside(folder: Path) -> Iterator[None]:
    """Let modules be found where one stands and beside the recipe, as `python script.py` does."""
    places = [str(Path.cwd()), str(folder.resolve())]
    sys.path[:0] = places
    try:
        yield
    finally:
        for place in places:
            sys.path.remove(place)


def load(call: str, used_for: str) -> Any:
    """Import what a recipe names."""
    try:
        return Reference(call).load()
    except PruneError:
        raise
    except ModuleNotFoundError as error:
        module = call.partition(":")[0]
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(
                f"{used_for}: there is no module {error.name!r}. It is looked for where you stand, "
                "beside the recipe, and among what is installed."
            ) from None
        raise ConfigError(
            f"{used_for}: {module!r} imports {error.name!r}, which is not there."
        ) from None
    except Exception as error:
        raise ConfigError(
            f"{used_for}: {call!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def made(call: str, arguments: dict[str, Any], used_for: str) -> Any:
    """Import something and call it, or return it if it is no function but what is wanted."""
    found = load(call, used_for)
    if not callable(found) or _is_module(found):
        if arguments:
            raise ConfigError(f"{used_for}: {call!r} is no function, so it takes no arguments.")
        return found
    try:
        return found(**arguments)
    except PruneError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{used_for}: {call}() failed: {type(error).__name__}: {error}"
        ) from error


def _is_module(found: Any) -> bool:
    nn = getattr(sys.modules.get("torch"), "nn", None)
    return nn is not None and isinstance(found, nn.Module)


def function_of(call: Call, used_for: str, more: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Return a function of the model, its other arguments bound.

    Args:
        call: What a recipe names.
        used_for: The key that names it.
        more: The names of what it is given besides, if it requires them.
    """
    function = load(call.call, used_for)
    if not callable(function):
        raise ConfigError(f"{used_for}: {call.call!r} is no function.")
    bound = partial(function, **call.arguments) if call.arguments else function
    return UserFunction(bound, used_for, ("model", *more)) if more else bound
