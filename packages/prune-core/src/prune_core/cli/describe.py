"""What a class or function says of itself in its source.

Importing an algorithm imports torch, which takes seconds; its signature, its docstring and its
config keys are text in a file.
"""

from __future__ import annotations

import ast
from copy import copy
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any

from prune_core.cli.definitions import Located, family, locate
from prune_core.config.keys import OPTIONAL_KEYS
from prune_core.reference import Reference

__all__ = ["Description", "describe"]


@dataclass(frozen=True)
class Description:
    """What the source of a registered object tells.

    Attributes:
        signature: How it is called, such as `"L1NormPruner(model, config_list)"`.
        documentation: Its docstring, without the example.
        example: The example of its docstring.
        config_keys: What it understands in a config beyond what every pruner does.
        capabilities: What its class declares that it can do: `granularity`, `modes`, `needs_data`
            and `needs_labels`; empty for what is no pruner.
    """

    signature: str = ""
    documentation: str = ""
    example: str = ""
    config_keys: dict[str, str] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=dict)


CAPABILITIES = ("granularity", "modes", "needs_data", "needs_labels")
"""Attributes of `prune_core.Pruner`, whose docstring says what they mean."""


def describe(reference: Reference) -> Description:
    """Read what can be known of a reference; what has no Python source gives an empty answer."""
    located = locate(reference.module, reference.attribute)
    if located is None:
        return Description()
    documentation, example = _split_example(ast.get_docstring(located.node) or "")
    return Description(
        _signature(located), documentation, example, _config_keys(located), _capabilities(located)
    )


def _signature(located: Located) -> str:
    node = located.node
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}({', '.join(_parameters(node.args))}){returns}"
    for relative in family(located):
        for member in relative.node.body:
            if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                return f"{node.name}({', '.join(_parameters(_without_self(member.args)))})"
        if isinstance(relative.node, ast.ClassDef) and _is_dataclass(relative.node):
            return f"{node.name}({_fields(relative.node)})"
    return f"{node.name}()"


def _without_self(arguments: ast.arguments) -> ast.arguments:
    own = copy(arguments)
    if arguments.posonlyargs:
        own.posonlyargs = arguments.posonlyargs[1:]
    else:
        own.args = arguments.args[1:]
    return own


def _parameters(arguments: ast.arguments) -> list[str]:
    """Write parameters as `inspect.signature` does, the separators `/` and `*` among them."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    written = [*map(_parameter, positional, defaults)]
    if arguments.posonlyargs:
        written.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        written.append(f"*{_parameter(arguments.vararg)}")
    elif arguments.kwonlyargs:
        written.append("*")
    written += map(_parameter, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        written.append(f"**{_parameter(arguments.kwarg)}")
    return written


def _parameter(argument: ast.arg, default: ast.expr | None = None) -> str:
    annotation = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    equals = " = " if annotation else "="
    value = f"{equals}{ast.unparse(default)}" if default else ""
    return f"{argument.arg}{annotation}{value}"


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = (ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list)
    return any(name in ("dataclass", "dataclasses.dataclass") for name in names)


def _fields(node: ast.ClassDef) -> str:
    fields = (member for member in node.body if isinstance(member, ast.AnnAssign))
    return ", ".join(ast.unparse(member) for member in fields)


def _capabilities(located: Located) -> dict[str, Any]:
    """Read what a class declares, or the nearest of those that it derives from."""
    declared: dict[str, Any] = {}
    for relative in reversed(family(located)):
        for member in relative.node.body:
            match member:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pass
                case _:
                    continue
            if name in CAPABILITIES:
                declared[name] = _literal(value)
    return {name: declared[name] for name in CAPABILITIES if name in declared}


def _config_keys(located: Located) -> dict[str, str]:
    """Read `config_keys = ("key", Key("other", rule, "meaning"))`, also from a base class."""
    for relative in family(located):
        for member in relative.node.body:
            match member:
                case ast.Assign(targets=[ast.Name(id="config_keys")], value=value):
                    return _keys(value)
                case ast.AnnAssign(target=ast.Name(id="config_keys"), value=ast.expr() as value):
                    return _keys(value)
    return {}


def _keys(value: ast.expr) -> dict[str, str]:
    match value:
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return {key: meaning for item in items for key, meaning in _key(item).items()}
        case ast.Dict(keys=names, values=meanings):
            return {
                str(_literal(n)): str(_literal(m)) for n, m in zip(names, meanings, strict=True)
            }
    return {}  # computed when the module is imported


def _key(item: ast.expr) -> dict[str, str]:
    match item:
        case ast.Constant(value=str(name)):
            return {name: OPTIONAL_KEYS[name].meaning if name in OPTIONAL_KEYS else ""}
        case ast.Call(args=[ast.Constant(value=str(name)), *rest], keywords=keywords):
            named = {keyword.arg: keyword.value for keyword in keywords}
            meaning = named.get("meaning", rest[1] if len(rest) > 1 else None)
            return {name: str(_literal(meaning)) if meaning else ""}
    return {}


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else ""
    except ValueError:
        return ""


def _split_example(docstring: str) -> tuple[str, str]:
    """Take the `Example:` section out of a docstring in Google's style."""
    lines = cleandoc(docstring).splitlines()
    for start, line in enumerate(lines):
        if line in ("Example:", "Examples:"):
            stop = start + 1
            while stop < len(lines) and (not lines[stop] or lines[stop].startswith(" ")):
                stop += 1
            example = cleandoc("\n" + "\n".join(lines[start + 1 : stop]))
            return "\n".join([*lines[:start], *lines[stop:]]).strip(), example
    return "\n".join(lines).strip(), ""
