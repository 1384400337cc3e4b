"""Which options an algorithm takes, read from its source without importing it.

The signature says names, defaults and types: `total_iteration: int | None = None`. What a class
hands on (`**options: Unpack[Options]`) is looked up where it is defined.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from prune_core.cli.definitions import Located, family, locate
from prune_core.reference import Reference
from prune_core.registry import Entry, entries, names

__all__ = ["GIVEN", "Option", "Options", "options_of", "wrong"]

GIVEN = {
    "model": "it is what `model` makes",
    "config_list": "write it beside `options`",
    "dummy_input": "it is what `inputs` makes",
    "example_inputs": "it is what `inputs` makes",
    "calibrate": "write `calibrate` or `data` at the top of the recipe",
    "data": "write `data` at the top of the recipe",
    "finetune": "write `finetune` at the top of the recipe",
    "evaluate": "write `evaluate` at the top of the recipe",
    "sparsity": "write it beside `options`",
    "target": "write it beside `options`",
    "count": "write it beside `options`",
    "targets": "write it beside `options`",
    "exclude": "write it beside `options`",
    "reconstruct": "write it beside `options`",
    "checkpoint": "the folder of the run keeps what is done",
    "log_dir": "the folder of the run keeps what is done",
    "experiment_data_dir": "the folder of the run keeps what is done",
    "keep_intermediate_result": "the folder of the run keeps what is done",
    "storage": "the folder of the run keeps what is done",
    "speedup": "the recipe makes the model small after all algorithms; see `shrink`",
    "optimizer": "a recipe trains with `finetune`, a function that makes its own",
    "stateful": "objects of Python do not fit into a recipe",
    "keep": "objects of Python do not fit into a recipe",
}
"""What a recipe says elsewhere, or what it does by itself."""

# One-line pruning takes these of any algorithm of output channels.
OF_PRUNE = {"round_to": "int", "uniform": "bool", "constants": "str"}

_REGISTERED = {"pruning_algorithm": "pruner", "curve": "schedule", "allocator": "allocator"} | {
    name: name for name in ("collector", "metric")
}


@dataclass(frozen=True, slots=True)
class Option:
    """One argument.

    Attributes:
        kinds: The JSON types that it may have; empty where anything may be right.
        choices: The values that it may have; empty where any of its types.
    """

    kinds: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Return this as JSON Schema."""
        if self.choices:
            others = [kind for kind in self.kinds if kind != "string"]
            texts: dict[str, Any] = {"enum": list(self.choices)}
            return {"anyOf": [texts, {"type": others}]} if others else texts
        return {"type": list(self.kinds)} if self.kinds else {}


@dataclass(frozen=True, slots=True)
class Options:
    """What an algorithm takes.

    Attributes:
        taken: All its arguments by name, those of `GIVEN` among them.
        others: Whether it may take more than that.
        required: What must be given.
    """

    taken: dict[str, Option] = field(default_factory=dict)
    others: bool = False
    required: tuple[str, ...] = ()

    @property
    def own(self) -> dict[str, Option]:
        """What a recipe can say under `options`: plain data that it says nowhere else."""
        return {
            name: option
            for name, option in self.taken.items()
            if name not in GIVEN and option.kinds != ("null",)
        }


_KINDS: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_CALLED = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def wrong(value: Any, option: Option) -> str:
    """Return what a value must be if it is not what an option may be, else nothing.

    >>> wrong("four", Option(("integer", "null")))
    'a whole number or null'
    """
    if option.choices and isinstance(value, str) and value not in option.choices:
        return f"one of {', '.join(option.choices)}"
    if not option.kinds or any(_KINDS[kind](value) for kind in option.kinds):
        return ""
    return " or ".join(_CALLED[kind] for kind in option.kinds)


def options_of(entry: Entry) -> Options:
    """Return what a registered pruner takes; without Python source, that may be anything."""
    return _options(entry.reference, entry.kind)


@cache
def _options(reference: Reference, kind: str) -> Options:
    located = locate(reference.module, reference.attribute)
    if located is None:
        return Options(others=True)
    taken: dict[str, Option] = {}
    required: list[str] = []
    others = False
    for node, inside in _signatures(located):
        others = False
        for argument, default in _arguments(node):
            if argument.arg not in taken:
                taken[argument.arg] = _option(argument, located)
                if default is None and argument.arg not in GIVEN:
                    required.append(argument.arg)
        if node.args.kwarg is None:
            break
        others = True
        if handed_on := _unpacked(node.args.kwarg, inside):
            for name, annotation in handed_on.items():
                taken.setdefault(name, Option(_kinds(annotation)))
            others = False
            break
    return Options(taken, others, tuple(required))


def _signatures(located: Located) -> Iterator[tuple[ast.FunctionDef, Located]]:
    """Yield the signature of a function, or those of a class and of its bases."""
    if isinstance(located.node, ast.FunctionDef):
        yield located.node, located
        return
    for relative in family(located):
        for member in relative.node.body:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                yield member, relative


def _arguments(node: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    positional = [*node.args.posonlyargs, *node.args.args]
    if positional and positional[0].arg == "self":
        positional = positional[1:]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults))
    yield from zip(positional, [*missing, *node.args.defaults], strict=True)
    yield from zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)


def _unpacked(argument: ast.arg, located: Located) -> dict[str, ast.expr]:
    """Return the keys of `**options: Unpack[SomeTypedDict]`, those of its bases among them."""
    match argument.annotation:
        case ast.Subscript(value=ast.Name(id="Unpack"), slice=inside):
            found = locate(located.module, ast.unparse(inside))
        case _:
            return {}
    keys: dict[str, ast.expr] = {}
    for relative in family(found) if found is not None else ():
        for member in relative.node.body:
            if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                keys.setdefault(member.target.id, member.annotation)
    return keys


def _option(argument: ast.arg, located: Located) -> Option:
    kinds = _kinds(argument.annotation)
    registered = _REGISTERED.get(argument.arg)
    if registered is not None:
        found = names(registered)
        owners = {f"{e.plugin.distribution}:{e.name}" for e in entries(registered)}
        return Option(kinds or ("string",), tuple(sorted(found | owners)))
    if argument.arg == "mode" and (modes := _modes(located)):
        return Option(kinds, modes)
    return Option(kinds, _literals(argument.annotation))


def _modes(located: Located) -> tuple[str, ...]:
    """Return the `modes` that a class declares, or the nearest of its bases."""
    for relative in family(located):
        for member in relative.node.body:
            match member:
                case ast.AnnAssign(target=ast.Name(id="modes"), value=ast.Tuple(elts=items)):
                    return tuple(ast.literal_eval(item) for item in items)
                case ast.Assign(targets=[ast.Name(id="modes")], value=ast.Tuple(elts=items)):
                    return tuple(ast.literal_eval(item) for item in items)
    return ()


_TYPES = {
    "int": ("integer",),
    "float": ("number",),
    "bool": ("boolean",),
    "str": ("string",),
    "None": ("null",),
    "dict": ("object",),
    "Mapping": ("object",),
    "list": ("array",),
    "tuple": ("array",),
    "Sequence": ("array",),
}


def _kinds(annotation: ast.expr | None) -> tuple[str, ...]:
    """Return the JSON types of an annotation; nothing where one is not known, for it may be any.

    >>> _kinds(ast.parse("int | None", mode="eval").body)
    ('integer', 'null')
    """
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            one, two = _kinds(left), _kinds(right)
            # What is no data in a recipe, such as a function, does not widen what is.
            both = one + two if (one or _is_code(left)) and (two or _is_code(right)) else ()
            return tuple(dict.fromkeys(both))
        case ast.Constant(value=None):
            return ("null",)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return ("string",)
        case ast.Subscript(value=inner):
            return _kinds(inner)
        case ast.Name(id=name):
            return _TYPES.get(name, ())
    return ()


def _is_code(annotation: ast.expr) -> bool:
    named = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return isinstance(named, ast.Name) and named.id in ("Callable", "Curve", "Algorithm", "type")


def _literals(annotation: ast.expr | None) -> tuple[str, ...]:
    match annotation:
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=items)):
            values = [ast.literal_eval(item) for item in items]
            return tuple(values) if all(isinstance(value, str) for value in values) else ()
    return ()
