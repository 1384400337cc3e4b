"""What of a recipe depends on the plugins that are installed: names, options, config keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from prune_core.cli.describe import Description, describe
from prune_core.config.keys import OPTIONAL_KEYS, Key
from prune_core.config.parse import parse
from prune_core.errors import ConfigError, PruneError, did_you_mean, nearest, shown
from prune_core.registry import Entry, get_entry, names
from prune_recipes.options import GIVEN, OF_PRUNE, Option, Options, options_of, wrong
from prune_recipes.recipe import Algorithm, Recipe
from prune_recipes.text import Place

__all__ = ["COSTS", "check", "config_keys", "needs_data", "removes", "takes", "told_by_rules"]

Found = tuple[Place, str, bool]
"""A place, what is wrong there, and whether it is the key that is meant."""

COSTS = ("parameters", "flops", "latency")


def check(recipe: Recipe) -> Iterator[Found]:
    """Yield everything in a recipe that cannot be done with what is installed."""
    masked = False
    for at, algorithm in enumerate(recipe.prune):
        place = ("prune", at)
        try:
            entry = get_entry("pruner", algorithm.algorithm, "torch")
        except PruneError as error:
            yield (*place, "algorithm"), _first_sentence(str(error)), False
            continue
        if entry.reference.prunes == "tokens":
            said = (
                f"{algorithm.algorithm!r} gives tokens new ids, which no data of a recipe have. "
                "Do it in Python first: prune_core.prune(model, ...) returns the ids as well."
            )
            yield (*place, "algorithm"), said, False
            continue
        yield from _check_algorithm(recipe, algorithm, entry, place)
        if removes(entry) and masked:
            said = (
                f"{algorithm.algorithm!r} takes out whole {entry.reference.prunes}, and what "
                "stands before it only masks. Put it first."
            )
            yield (*place, "algorithm"), said, False
        masked = masked or not removes(entry)
    yield from _check_the_rest(recipe)


def _check_the_rest(recipe: Recipe) -> Iterator[Found]:
    files: dict[str, int] = {}
    for at, export in enumerate(recipe.export):
        known = sorted(names("exporter"))
        if export.format.rpartition(":")[2] not in known:
            said = f"format is {shown(export.format)}, which no plugin writes."
            yield ("export", at, "format"), said + nearest(export.format, known), False
        file = export.file or f"model.{export.format}"
        if file in files:
            said = f"{shown(file)} is written by export[{files[file]}] already; give another file."
            yield ("export", at), said, False
        files[file] = at
    if recipe.recover is not None and find_spec("prune_recover") is None:
        yield ("recover",), "recover needs prune-recover: `pip install prune-recover`.", True


def removes(entry: Entry) -> bool:
    """Whether an algorithm takes out whole structures instead of masking."""
    return entry.reference.prunes in ("blocks", "experts", "blocks and channels")


def needs_data(entry: Entry) -> bool:
    """Whether an algorithm has to see the model run."""
    return removes(entry) or bool(_facts(entry).get("needs_data", False))


def told_by_rules(entry: Entry) -> bool:
    """Whether an algorithm is told how much to prune by its config_list alone, as schedules are."""
    granularity = _facts(entry).get("granularity", "")
    return granularity == "" and "config_list" in options_of(entry).taken


def _facts(entry: Entry) -> dict[str, Any]:
    return describe(entry.reference).capabilities


def takes(entry: Entry) -> dict[str, Option]:
    """Return what a recipe can say under `options` of an algorithm."""
    own = options_of(entry).own
    if _facts(entry).get("granularity") == "channels":
        own = {name: Option((_JSON[kind],)) for name, kind in OF_PRUNE.items()} | own
    return own


_JSON = {"int": "integer", "bool": "boolean", "str": "string"}


def _check_algorithm(
    recipe: Recipe, algorithm: Algorithm, entry: Entry, place: Place
) -> Iterator[Found]:
    options = options_of(entry)
    description = describe(entry.reference)
    yield from _check_options(algorithm, entry, options, place)
    if algorithm.config_list is not None:
        if removes(entry):
            said = f"{algorithm.algorithm!r} takes no config_list; say sparsity, target or count."
            yield (*place, "config_list"), said, True
        else:
            yield from _check_config_list(algorithm.config_list, description, place)
    elif told_by_rules(entry):
        key = next(k for k in ("sparsity", "target", "count") if k in algorithm.model_fields_set)
        said = (
            f"{algorithm.algorithm!r} is told how much to prune by its config_list, not by "
            f"{key!r}. Write config_list: [{{sparsity: 0.5, op_types: [default]}}]."
        )
        yield (*place, key), said, True
    if algorithm.count is not None and not removes(entry):
        said = (
            f"count is for algorithms of blocks; {algorithm.algorithm!r} takes sparsity or target."
        )
        yield (*place, "count"), said, True
    costs = sorted({*COSTS, *names("cost")})
    for cost in algorithm.target or {}:
        if cost not in costs:
            said = f"target has {shown(cost)}, which nobody counts."
            yield (*place, "target", cost), said + nearest(cost, costs), True
    wanted = algorithm.reconstruct or []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name.rpartition(":")[2] not in names("reconstructor"):
            said = f"reconstruct is {shown(name)}, which no plugin registers."
            known = sorted(names("reconstructor"))
            yield (*place, "reconstruct"), said + nearest(name, known), False
    if wanted and "reconstruct" not in options.taken and not options.others:
        yield (*place, "reconstruct"), f"{algorithm.algorithm!r} takes no reconstruct.", True
    yield from _check_functions(recipe, algorithm, entry, place)


def _check_functions(
    recipe: Recipe, algorithm: Algorithm, entry: Entry, place: Place
) -> Iterator[Found]:
    runs = recipe.calibrate is not None or recipe.data is not None
    if (needs_data(entry) or algorithm.reconstruct) and not runs:
        what = "reconstruct" if algorithm.reconstruct else repr(algorithm.algorithm)
        said = (
            f"{what} looks at data: give `data`, a function that returns inputs of the model, or "
            "`calibrate`, one that runs it."
        )
        yield (*place, "reconstruct" if algorithm.reconstruct else "algorithm"), said, True
    # What removes whole structures only reads the loss that a model returns on its data.
    gradients = _facts(entry).get("needs_labels") and not removes(entry)
    if gradients and recipe.calibrate is None and runs:
        said = (
            f"{algorithm.algorithm!r} needs the gradients of a loss: give `calibrate`, a function "
            "that runs the model and calls backward(), instead of `data`."
        )
        yield (*place, "algorithm"), said, False


def _check_options(
    algorithm: Algorithm, entry: Entry, options: Options, place: Place
) -> Iterator[Found]:
    own = takes(entry)
    for name, value in algorithm.options.items():
        here = (*place, "options", name)
        if name not in own and (name in GIVEN or name in options.taken):
            why = GIVEN.get(name, "an object of Python does not fit into a recipe")
            yield here, f"{name!r} is no option in a recipe: {why}.", True
        elif name in own:
            if must := wrong(value, own[name]):
                said = f"{name} is {shown(value)}; it must be {must}."
                close = did_you_mean(value, own[name].choices) if isinstance(value, str) else ""
                yield here, said + close, False
        elif not options.others:
            meant = did_you_mean(name, own)
            known = f" It takes {', '.join(own)}." if own else " It takes none."
            yield here, f"{algorithm.algorithm!r} takes no {name!r}.{meant or known}", True
    for name in options.required:
        if name not in algorithm.options:
            said = f"{algorithm.algorithm!r} needs the option {name!r}."
            yield (*place, "options"), said, False


def config_keys(description: Description) -> list[str | Key]:
    """Return the keys that an algorithm understands beyond the common ones."""
    if description.capabilities.get("granularity", "") == "":
        return list(OPTIONAL_KEYS)  # a schedule, or a search, with one of any algorithm
    return [
        name if name in OPTIONAL_KEYS else Key(name, lambda value: None)
        for name in description.config_keys
    ]


def _check_config_list(
    rules: Iterable[dict[str, Any]], description: Description, place: Place
) -> Iterator[Found]:
    for at, rule in enumerate(rules):
        try:
            parse([rule], config_keys(description))
        except ConfigError as error:
            said = str(error).replace("config_list[0]", f"config_list[{at}]")
            quoted = re.findall(r"'(\w+)'", said)
            key = next((name for name in quoted if name in rule), None)
            here: Place = (*place, "config_list", at)
            yield (here if key is None else (*here, key)), said, key is not None


def _first_sentence(said: str) -> str:
    """Leave out the list of all names, which is longer than a screen, where one is meant."""
    head, found, _ = said.partition(" Registered: ")
    return head if found and "Did you mean" in head else said
