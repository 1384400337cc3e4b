"""What else an attribute is used for, in code that has not run.

`heads` is told to a view, and so it was changed. The forward may also say `y * self.heads`, where
nobody came that way yet: with a mask, say, that the example does not have. That would be another
number now, without a word. So the attributes that were changed are watched while the small model
runs, and where the source reads one elsewhere, and not as a size, it has to stay what it was.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.torch.record.call_sites import SIZED
from prune_speedup.torch.resize.rewrite import original_of, syntax_of
from prune_speedup.torch.resize.traced_integers import Source

__all__ = ["Reads", "doubtful", "watching"]

Reads = dict[tuple[type, str], set[tuple[int, int]]]
"""Where an attribute of a class was read: the last line and column of the expression."""


@contextmanager
def watching(model: nn.Module, sources: Iterable[Source], reads: Reads) -> Iterator[None]:
    """Note where these attributes are read."""
    names: dict[str, set[str]] = {}
    for source in sources:
        names.setdefault(source.module, set()).add(str(source.path[0]))
    classes = {name: type(model.get_submodule(name)) for name in names}
    try:
        for name, attributes in names.items():
            module = model.get_submodule(name)
            kept = {
                key: _watched(key, classes[name], reads) for key in attributes & {*vars(module)}
            }
            module.__class__ = type(classes[name].__name__, (classes[name],), kept)
        yield
    finally:
        for name, kind in classes.items():
            model.get_submodule(name).__class__ = kind


def _watched(key: str, kind: type, reads: Reads) -> property:
    seen = reads.setdefault((kind, key), set())

    def get(module: Any) -> Any:
        frame = sys._getframe(1)
        positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        if positions[1] is not None and positions[3] is not None:
            seen.add((positions[1], positions[3]))
        return vars(module)[key]

    def put(module: Any, value: Any) -> None:
        vars(module)[key] = value

    return property(get, put)


def doubtful(model: nn.Module, sources: Iterable[Source], reads: Reads) -> dict[Source, str]:
    """The attributes that are read elsewhere and not as a size, and how."""
    found: dict[Source, str] = {}
    for source in sources:
        kind, key = type(model.get_submodule(source.module)), str(source.path[0])
        for expression in _others(kind, key, reads.get((kind, key), set())):
            found[source] = expression
    return found


def _others(kind: type, key: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    for base in kind.__mro__:
        if base.__module__.startswith("torch."):
            continue
        for value in vars(base).values():
            if isinstance(value, FunctionType) and value.__name__ != "__init__":
                yield from _in_function(value, key, seen)


def _in_function(function: FunctionType, key: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    try:
        tree = syntax_of(original_of(function))
    except SpeedupError:
        return
    above = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr == key
            and isinstance(node.ctx, ast.Load)
            and isinstance(node.value, ast.Name)
            and (node.end_lineno, node.end_col_offset) not in seen
        ):
            whole = _arithmetic_of(node, above)
            if not _is_size(whole, node, above):
                yield ast.unparse(whole)


def _arithmetic_of(node: ast.AST, above: dict[ast.AST, ast.AST]) -> ast.AST:
    """The arithmetic that an expression is part of, or the expression."""
    while isinstance(above.get(node), ast.BinOp | ast.UnaryOp):
        node = above[node]
    return node


def _is_size(whole: ast.AST, node: ast.AST, above: dict[ast.AST, ast.AST]) -> bool:
    """Whether a number is told to a function as a size, or to one that may do so."""
    around = above.get(whole)
    while isinstance(around, ast.Tuple | ast.List | ast.Starred | ast.keyword | ast.BinOp):
        whole, around = around, above.get(around)
    if isinstance(around, ast.Call):
        called = around.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return whole is not called and (name in SIZED or (name != "range" and _is_plain(whole)))
    if isinstance(around, ast.Compare):
        return isinstance(whole, ast.Tuple)
    return isinstance(around, ast.JoinedStr | ast.FormattedValue) or _is_plain(whole)


def _is_plain(whole: ast.AST) -> bool:
    """Whether arithmetic is made of attributes and constants alone."""
    return all(
        isinstance(
            node,
            ast.Attribute
            | ast.Constant
            | ast.operator
            | ast.unaryop
            | ast.expr_context
            | ast.BinOp
            | ast.UnaryOp
            | ast.Tuple
            | ast.List
            | ast.Starred,
        )
        or (isinstance(node, ast.Name) and node.id == "self")
        for node in ast.walk(whole)
    )
