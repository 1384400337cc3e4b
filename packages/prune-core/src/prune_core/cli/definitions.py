"""Finding the definition of a class or function in source files, without importing them.

Names are followed through imports and base classes, as far as there is Python source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name

__all__ = ["Located", "family", "locate"]

Definition = ast.ClassDef | ast.FunctionDef
MAX_HOPS = 20


@dataclass(frozen=True)
class Located:
    """A definition, and the module in which its names mean something."""

    node: Definition
    module: str


def locate(module: str, attribute: str, hops: int = 0) -> Located | None:
    """Find the definition that `module.attribute` leads to."""
    first, _, rest = attribute.partition(".")
    body = _body(module)
    if body is None or hops > MAX_HOPS:
        return None
    for node in _statements(body):
        if isinstance(node, Definition) and node.name == first:
            return _member(Located(node, module), rest)
        if isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), _package(module))
            for alias in node.names:
                if (alias.asname or alias.name) == first:
                    return locate(source, ".".join(filter(None, (alias.name, rest))), hops + 1)
                if alias.name == "*" and (found := locate(source, attribute, hops + 1)):
                    return found
        if isinstance(node, ast.Import):
            for alias in node.names:
                if rest and (alias.asname or alias.name.partition(".")[0]) == first:
                    return _locate_dotted(alias.name if alias.asname else first, rest, hops)
    if _spec(f"{module}.{first}") is not None and rest:
        return locate(f"{module}.{first}", rest, hops + 1)
    return None


def _locate_dotted(module: str, attribute: str, hops: int) -> Located | None:
    """Find `package.module.Class`, where only the source tells which dot ends the module."""
    first, _, rest = attribute.partition(".")
    if rest and _spec(f"{module}.{first}") is not None:
        return _locate_dotted(f"{module}.{first}", rest, hops)
    return locate(module, attribute, hops + 1)


def _member(located: Located, attribute: str) -> Located | None:
    """Go down into nested classes."""
    for name in filter(None, attribute.split(".")):
        found = [n for n in located.node.body if isinstance(n, Definition) and n.name == name]
        if not found:
            return None
        located = Located(found[-1], located.module)
    return located


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield a module's statements, also those under `if TYPE_CHECKING:` and `try:`."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            inner = [statement for handler in node.handlers for statement in handler.body]
            yield from _statements([*node.body, *inner, *node.orelse])
        else:
            yield node


@cache
def _body(module: str) -> list[ast.stmt] | None:
    spec = _spec(module)
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    try:
        source = get_source(module) if get_source else None
        return None if source is None else ast.parse(source).body
    except (ImportError, OSError, SyntaxError, ValueError):
        return None


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Find a module like `importlib.util.find_spec`, but without importing its parents."""
    parent, _, _ = module.rpartition(".")
    if not parent:
        try:
            return find_spec(module)
        except (ImportError, ValueError):
            return None
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, above.submodule_search_locations)


def _package(module: str) -> str:
    spec = _spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    return module if is_package else module.rpartition(".")[0]


def family(located: Located) -> list[Located]:
    """Return a class and what it derives from, in the order in which Python looks them through.

    A class that several others derive from comes after the last of them.
    """
    seen = [*_ancestors(located)]
    latest = {(each.module, each.node.name): at for at, each in enumerate(seen)}
    return [seen[at] for at in sorted(latest.values())]


def _ancestors(located: Located, hops: int = 0) -> Iterator[Located]:
    yield located
    if not isinstance(located.node, ast.ClassDef) or hops > MAX_HOPS:
        return
    for base in located.node.bases:
        name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
        found = locate(located.module, name)
        if found is not None and found.node is not located.node:
            yield from _ancestors(found, hops + 1)
