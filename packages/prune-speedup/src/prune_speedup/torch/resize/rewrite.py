"""A function again, with some of its expressions going through a function of ours.

The source is read, a few expressions of it are changed, and the result is compiled in the place
of the original: with its globals, its closure, its defaults and its line numbers. With an edit at
`x.view(-1, 8)`,

    def forward(self, x):
        return self.last(x.view(-1, 8))

becomes

    def forward(self, x):
        return self.last(edit(x.view, -1, 8))

A function is only rewritten if its source, compiled as it is, gives the very code that is running.
"""

import ast
import copy
import dis
import linecache
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from types import CellType, CodeType, FunctionType
from typing import Any

from prune_core.errors import SpeedupError
from prune_speedup.torch.record.source_places import Span

__all__ = [
    "Edit",
    "inside",
    "kind_at",
    "name_of",
    "original_of",
    "rewritten",
    "syntax_of",
    "text_of",
    "whole_span",
]

Edit = tuple[str, Callable[..., Any]]
"""What an expression is, and what it goes through from now on.

A "call", `f(x, 8)`, becomes `edit(f, x, 8)`. A "super" call, `super().f(x, 8)`, becomes
`edit(self, x, 8)`. Of an operator, an index or an assignment, which has "operands", each becomes
`edit(operand)`; of an index only what stands between the brackets.
"""

_ORIGINAL = "__prune_original__"
_OUTER = "__prune_outer__"
_SLICE = "__prune_slice__"
_SUFFIX = " (with the sizes of a smaller model)"
_Node = ast.Call | ast.BinOp | ast.AugAssign | ast.Subscript
Syntax = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def original_of(function: FunctionType) -> FunctionType:
    """The function that a rewritten one was made of, or the function itself."""
    found: FunctionType = getattr(function, _ORIGINAL, function)
    return found


def name_of(code: CodeType) -> str:
    """A function's qualified name; where others may have the same, with its line."""
    name = code.co_qualname
    return f"{name}:{code.co_firstlineno}" if "<" in name else name


def inside(outer: CodeType, inner: CodeType) -> bool:
    """Whether code is a function's own, or that of a function or comprehension within it."""
    return outer is inner or any(
        isinstance(constant, CodeType) and inside(constant, inner) for constant in outer.co_consts
    )


def text_of(code: CodeType, span: Span) -> str:
    """What stands at a place of a function.

    Raises:
        SpeedupError: There is no source, or no such expression in it.
    """
    return ast.unparse(_node_at(_parsed(_lines(code)), span))


def whole_span(code: CodeType, span: Span) -> Span:
    """Where the expression at a place of a function begins and ends.

    An instruction tells a call of a method from the method's name on, if what comes before stands
    on earlier lines. Edited, the same call is told from its first line.

    Raises:
        SpeedupError: There is no source, or no such expression in it.
    """
    node = _node_at(_parsed(_lines(code)), span)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def kind_at(function: FunctionType, span: Span) -> tuple[str, str]:
    """What stands at a place of a function, see `Edit`, and the name of the method if it is one."""
    node = _node_at(syntax_of(original_of(function)), span)
    if not isinstance(node, ast.Call):
        return "operands", ""
    if _of_super(node) and function.__code__.co_argcount:
        return "super", node.func.attr  # type: ignore[attr-defined]
    return "call", ""


def _of_super(node: ast.Call) -> bool:
    """Whether this is `super().method(...)`."""
    return (
        isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Call)
        and isinstance(node.func.value.func, ast.Name)
        and node.func.value.func.id == "super"
        and not node.func.value.args
    )


def rewritten(function: FunctionType, edits: Mapping[Span, Edit]) -> FunctionType:
    """The function with these expressions edited.

    Raises:
        SpeedupError: Its source is not there, or is not what is running.
    """
    function = original_of(function)
    tree = syntax_of(function)
    names = {f"__prune_{at}__": edit for at, (_, edit) in enumerate(edits.values())}
    nodes = {id(_node_at(tree, span)): name for span, name in zip(edits, names, strict=True)}
    # The nodes are told by identity, which a copy would not keep.
    memo: dict[int, Any] = {}
    changed = copy.deepcopy(tree, memo)
    kinds = {name: kind for name, (kind, _) in zip(names, edits.values(), strict=True)}
    there = {id(memo[node]): (name, kinds[name]) for node, name in nodes.items()}
    first = (function.__code__.co_varnames or ("",))[0]
    changed = _Editing(there, first).visit(changed)
    code = _compiled(function, changed, (*names, _SLICE))
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells |= {name: CellType(edit) for name, edit in {**names, _SLICE: slice}.items()}
    made = FunctionType(
        code.replace(
            co_filename=function.__code__.co_filename + _SUFFIX,
            co_qualname=function.__code__.co_qualname,
        ),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(cells[name] for name in code.co_freevars),
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__dict__.update(function.__dict__)
    made.__doc__, made.__module__ = function.__doc__, function.__module__
    made.__qualname__ = function.__qualname__
    made.__annotations__ = function.__annotations__
    setattr(made, _ORIGINAL, function)
    return made


class _Editing(ast.NodeTransformer):
    def __init__(self, edits: Mapping[int, tuple[str, str]], first: str) -> None:
        self._edits = edits
        self._first = first

    def visit(self, node: ast.AST) -> Any:
        """Edit the inner expressions first, then the one around them."""
        name, kind = self._edits.get(id(node), (None, ""))
        self.generic_visit(node)
        if name is None:
            return node
        if isinstance(node, ast.Call):
            what = _name(self._first, node) if kind == "super" else node.func
            edited: ast.AST = ast.Call(_name(name, node), [what, *node.args], node.keywords)
            return ast.copy_location(edited, node)
        if isinstance(node, ast.BinOp):
            node.left, node.right = _through(name, node.left), _through(name, node.right)
        elif isinstance(node, ast.AugAssign):
            node.value = _through(name, node.value)
        elif isinstance(node, ast.Subscript):
            node.slice = _through(name, _as_value(node.slice))
        return node


def _through(name: str, value: ast.expr) -> ast.expr:
    return ast.copy_location(ast.Call(_name(name, value), [value], []), value)


def _name(name: str, beside: ast.expr) -> ast.expr:
    return ast.copy_location(ast.Name(name, ast.Load()), beside)


def _as_value(index: ast.expr) -> ast.expr:
    """What stands between brackets, as an expression that may stand anywhere."""
    if isinstance(index, ast.Tuple):
        items = [_as_value(item) for item in index.elts]
        return ast.copy_location(ast.Tuple(items, ast.Load()), index)
    if isinstance(index, ast.Slice):
        none = ast.copy_location(ast.Constant(None), index)
        bounds = [bound or none for bound in (index.lower, index.upper, index.step)]
        return ast.copy_location(ast.Call(_name(_SLICE, index), bounds, []), index)
    return index


def _node_at(tree: ast.AST, span: Span) -> _Node:
    """The expression of an instruction.

    A call of a method that begins on an earlier line than the method's name is told from there.
    """
    first, last, begin, end = span
    ending = [
        node
        for node in ast.walk(tree)
        if isinstance(node, _Node) and (node.end_lineno, node.end_col_offset) == (last, end)
    ]
    exact = [node for node in ending if (node.lineno, node.col_offset) == (first, begin)]
    calls = [
        node
        for node in ending
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (node.lineno, node.col_offset) <= (first, begin)
    ]
    found = exact or calls
    if len(found) != 1:
        raise SpeedupError(f"line {first} has no single expression that makes the call")
    return found[0]


def syntax_of(function: FunctionType) -> Syntax:
    """The syntax of a function, if it is the syntax of what runs."""
    code = function.__code__
    for tree in _functions(_parsed(_lines(code)), code):
        if _same(_compiled(function, tree), code, tree):
            return tree
    raise SpeedupError(
        f"{code.co_filename}, line {code.co_firstlineno}, is not the source of the "
        f"{code.co_qualname} that is running"
    )


def _lines(code: CodeType) -> str:
    lines = linecache.getlines(code.co_filename.removesuffix(_SUFFIX))
    if not lines:
        raise SpeedupError(f"the source of {code.co_qualname} is not there ({code.co_filename})")
    return "".join(lines)


@lru_cache(maxsize=64)
def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise SpeedupError(f"the source is no Python: {error}") from error


def _functions(tree: ast.Module, code: CodeType) -> Iterator[Syntax]:
    """The functions that begin where this one does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            first, name = node.lineno, "<lambda>"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            name = node.name
        else:
            continue
        if (first, name) == (code.co_firstlineno, code.co_name):
            yield node


def _compiled(function: FunctionType, tree: Syntax, names: tuple[str, ...] = ()) -> CodeType:
    """The code of a function, compiled where it stands: in its class, with what it closes over.

    Nothing but the code is taken, so that neither decorators nor defaults are worked out again.
    """
    code = function.__code__
    holder, closed = _class_of(code.co_qualname), code.co_freevars
    # Names with two underscores belong to the class, and `super()` needs to be in one.
    given = [name for name in (*closed, *names) if name != "__class__" or not holder]
    bound = holder or code.co_name
    lines = [f"def {_OUTER}({', '.join(given)}):"]
    if bound.isidentifier() and bound not in closed:
        lines.append(f" global {bound}")  # as in the file, and no variable of this function
    lines += [f" class {holder}:", "  pass"] if holder else [" pass"]
    module = ast.parse("\n".join(lines))
    around: Any = module.body[0]
    around = around.body[-1] if holder else around
    around.body[-1] = ast.Expr(tree) if isinstance(tree, ast.Lambda) else tree
    # A name that the file imports is called by other instructions than one that it does not.
    module.body[:0] = _imports(_parsed(_lines(code)))
    ast.fix_missing_locations(module)
    flags = code.co_flags & _FUTURE
    whole = compile(module, code.co_filename, "exec", flags=flags, dont_inherit=True)
    found = _find(whole, tree, code.co_name)
    assert found is not None
    return found


def _imports(tree: ast.AST) -> Iterator[ast.stmt]:
    """What a file imports, outside its functions and classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if getattr(node, "module", "") != "__future__":
                yield node
        elif isinstance(node, ast.stmt | ast.excepthandler) and not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            yield from _imports(node)


_FUTURE = 0x1FE0000
"""The bits of `from __future__ import ...`, as `compile` and code have them."""


def _find(code: CodeType, tree: Syntax, name: str) -> CodeType | None:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_name == name and constant.co_firstlineno == _first_line(tree):
                return constant
            if (found := _find(constant, tree, name)) is not None:
                return found
    return None


def _first_line(tree: Syntax) -> int:
    decorators = [] if isinstance(tree, ast.Lambda) else tree.decorator_list
    return min([tree.lineno, *(each.lineno for each in decorators)])


def _class_of(qualname: str) -> str:
    """The class that a function is written in, directly or within another function of it."""
    *around, _ = qualname.split(".")
    classes = [part for part, after in pairwise([*around, ""]) if "<locals>" not in (part, after)]
    return classes[-1] if classes else ""


def _same(one: CodeType, other: CodeType, tree: Syntax) -> bool:
    """Whether two pieces of code do the same in the same lines.

    What an `assert` does is not compared: test runners put more into it.
    """
    asserts = [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    return _said(one, asserts) == _said(other, asserts)


def _said(code: CodeType, apart: list[Any]) -> list[Any]:
    """What each instruction of a piece of code says, without those in some spans."""
    said: list[Any] = []
    for instruction in dis.get_instructions(code):
        found = instruction.positions
        first, last, begin, end = found or (None,) * 4
        if any(a <= (first or 0, begin or 0) and (last or 0, end or 0) <= b for a, b in apart):
            continue
        value: Any = instruction.argval
        if isinstance(value, CodeType):
            value = _said(value, apart)
        elif instruction.opcode in (*dis.hasjrel, *dis.hasjabs):
            value = None  # so many instructions further, which an assert between them changes
        if instruction.opname != "EXTENDED_ARG":
            said.append((instruction.opname, type(value), value, found))
    return said
