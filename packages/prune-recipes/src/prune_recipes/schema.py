"""The JSON Schema of recipes, made from the models and from the plugins that are installed."""

from __future__ import annotations

from typing import Any

from prune_core.cli.describe import describe
from prune_core.config.keys import COMMON_KEYS, OPTIONAL_KEYS
from prune_core.config.parse import SELECTORS
from prune_core.registry import Entry, entries, names
from prune_recipes.checks import COSTS, config_keys, needs_data, removes, takes, told_by_rules
from prune_recipes.options import options_of
from prune_recipes.recipe import TARGET, Algorithm, Export, Inputs, Model, Recipe, Recovery, Strict

__all__ = ["recipe_schema"]

_RATIO = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_NAMES = {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}
_FLAG = {"type": "boolean"}


def _at_least(least: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least}


KEYS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(SELECTORS, _NAMES),
    "exclude": _FLAG,
    **dict.fromkeys(("sparsity", "sparsity_per_layer", "total_sparsity"), _RATIO),
    "max_sparsity_per_layer": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    **dict.fromkeys(("initial_sparsity", "final_sparsity"), _RATIO),
    **dict.fromkeys(("start_epoch", "end_epoch", "start_step", "end_step"), _at_least(0)),
    **dict.fromkeys(("frequency", "prune_iterations"), _at_least(1)),
    "rho": {"type": "number", "exclusiveMinimum": 0},
}
"""The keys of a config_list that prune-core knows, as JSON Schema."""


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, third-party plugins included; nothing is imported.

    Example:
        >>> recipe_schema()["required"]
        ['model', 'inputs', 'prune']
    """
    schema: dict[str, Any] = _plain(Recipe.model_json_schema(by_alias=True))
    models: dict[str, type[Strict]] = {
        each.__name__: each for each in (Model, Inputs, Algorithm, Recovery, Export)
    }
    for name, model in models.items():
        _add_rules(schema["$defs"][name], model)
    _add_rules(schema, Recipe)
    _add_plugins(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe for prune",
        **{key: value for key, value in schema.items() if key != "title"},
    }


_SHORT = ("Call", "Training", "Model", "Inputs")


def _plain(schema: Any) -> Any:
    """Leave out titles and null, which a recipe does not have, and let a text stand for a call."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if str(schema.get("$ref", "")).rpartition("/")[2] in _SHORT:
        short = {"anyOf": [{"type": "string", "pattern": TARGET}, {"$ref": schema["$ref"]}]}
        return {**{key: value for key, value in schema.items() if key != "$ref"}, **short}
    made = {
        key: {name: _plain(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else _plain(value)
        for key, value in schema.items()
        if key not in ("title", "default") and not (key == "default" and value is None)
    }
    if "anyOf" in made:
        made["anyOf"] = [each for each in made["anyOf"] if each != {"type": "null"}]
        if len(made["anyOf"]) == 1:
            made |= made.pop("anyOf")[0]
    return made


def _add_rules(schema: dict[str, Any], model: type[Strict]) -> None:
    """Write down which keys exclude and which need each other."""
    if model.one_of:
        schema["oneOf"] = [{"required": [key]} for key in model.one_of]
    if model.needs:
        schema["dependentRequired"] = {key: [other] for key, other in model.needs.items()}
    rules = [{"not": {"required": [*pair]}} for pair in model.not_both]
    if rules:
        schema["allOf"] = schema.get("allOf", []) + rules


def _add_plugins(schema: dict[str, Any]) -> None:
    pruners = [entry for entry in entries("pruner") if entry.reference.framework in ("", "torch")]
    algorithm = schema["$defs"]["Algorithm"]
    algorithm["properties"]["algorithm"]["enum"] = [n for each in pruners for n in _names_of(each)]
    algorithm["allOf"] += [_of_algorithm(entry) for entry in pruners]
    costs = sorted({*COSTS, *names("cost")})
    algorithm["properties"]["target"]["propertyNames"] = {"enum": costs}
    reconstructors = {"enum": [n for each in entries("reconstructor") for n in _names_of(each)]}
    algorithm["properties"]["reconstruct"] = {
        "description": algorithm["properties"]["reconstruct"]["description"],
        "anyOf": [reconstructors, {"type": "array", "items": reconstructors}],
    }
    exporters = [name for each in entries("exporter") for name in _names_of(each)]
    schema["$defs"]["Export"]["properties"]["format"]["enum"] = exporters
    data = {"anyOf": [{"required": ["data"]}, {"required": ["calibrate"]}]}
    needing = [name for each in pruners if needs_data(each) for name in _names_of(each)]
    looks: list[dict[str, Any]] = [
        {"properties": {"algorithm": {"enum": needing}}, "required": ["algorithm"]},
        {"required": ["reconstruct"]},
    ]
    schema["allOf"] += [
        {
            "if": {"properties": {"prune": {"contains": look}}, "required": ["prune"]},
            "then": data,
        }
        for look in looks
    ]


def _names_of(entry: Entry) -> tuple[str, str]:
    return entry.name, entry.qualified_name


def _of_algorithm(entry: Entry) -> dict[str, Any]:
    """What a recipe may say of one algorithm."""
    options = options_of(entry)
    allowed: dict[str, Any] = {
        "properties": {name: option.schema() for name, option in takes(entry).items()},
        "additionalProperties": options.others,
    }
    if options.required:
        allowed["required"] = [*options.required]
    properties: dict[str, Any] = {"options": allowed}
    then: dict[str, Any] = {"properties": properties}
    if removes(entry):
        properties |= {"config_list": False}
    else:
        properties |= {"count": False, "config_list": {"items": _rule(entry)}}
    if told_by_rules(entry):
        properties |= {"sparsity": False, "target": False}
    if "reconstruct" not in options.taken and not options.others:
        properties |= {"reconstruct": False}
    if options.required:
        then["required"] = ["options"]
    named = {"properties": {"algorithm": {"enum": [*_names_of(entry)]}}, "required": ["algorithm"]}
    return {"if": named, "then": then}


def _rule(entry: Entry) -> dict[str, Any]:
    """An entry of the config_list of an algorithm."""
    more = config_keys(describe(entry.reference))
    known = [*COMMON_KEYS.values()]
    known += [OPTIONAL_KEYS[key] if isinstance(key, str) else key for key in more]
    amounts = [key.name for key in known if key.is_amount]
    return {
        "properties": {
            key.name: KEYS.get(key.name, {}) | ({"description": key.meaning} if key.meaning else {})
            for key in known
        },
        "additionalProperties": False,
        "anyOf": [{"required": [selector]} for selector in SELECTORS],
        "if": {"properties": {"exclude": {"const": True}}, "required": ["exclude"]},
        "then": {"propertyNames": {"enum": [*SELECTORS, "exclude"]}},
        "else": {"oneOf": [{"required": [amount]} for amount in amounts]},
    }
