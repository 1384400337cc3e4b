"""Break the engine's rules in small ways, one at a time, and see whether a test notices.

    tox run -e mutants                       60 of the mutants of rules and engine
    tox run -e mutants -- --sample 200       more of them
    tox run -e mutants -- --only reduction   those of files with that in their name

A mutant turns one comparison, one number, one `and`, one `not` or one call of `fix`, `pin`, `tie`
around. One that no test notices is printed: either the test is missing, or the line is.
"""

import argparse
import ast
import importlib.abc
import importlib.util
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from repo import ROOT

SOURCE = ROOT / "packages/prune-speedup/src/prune_speedup"
FOLDERS = ("torch/rules", "engine")
TESTS = ROOT / "packages/prune-speedup/tests/graph"
SWAPPED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
NOTES = {"fix", "fix_value", "pin", "pin_all", "pin_labels", "tie", "settle", "at_least"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: Path
    line: int
    what: str
    source: str


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    text = file.read_text()
    for number, node in enumerate(ast.walk(ast.parse(text))):
        for what, change in _changes(node):
            tree = ast.parse(text)
            changed = list(ast.walk(tree))[number]
            change(changed)
            yield Mutant(file, getattr(node, "lineno", 0), what, ast.unparse(tree))


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield what can be turned around at a node, and how."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        other = SWAPPED[type(node.ops[0])]
        yield f"{ast.unparse(node)}: {other.__name__}", lambda n: n.ops.__setitem__(0, other())
    if isinstance(node, ast.BoolOp):
        joined = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{ast.unparse(node)}: {joined.__name__}", lambda n: setattr(n, "op", joined())
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield f"{node.value}: + 1", lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Expr) and _name(node.value) in NOTES:
        yield (
            f"{ast.unparse(node)}: gone",
            lambda n: setattr(n, "value", ast.Constant(value=None)),
        )
    if isinstance(node, ast.Return) and _name(node.value) in {"at_least", "never_zero"}:
        yield f"{ast.unparse(node)}: bare", lambda n: setattr(n, "value", n.value.func.value)


def _name(node: ast.AST | None) -> str:
    called = node.func if isinstance(node, ast.Call) else None
    return called.attr if isinstance(called, ast.Attribute) else ""


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant in place of the file."""

    def __init__(self, mutant: Mutant) -> None:
        parts = mutant.file.relative_to(SOURCE.parent).with_suffix("").parts
        self.mutant, self.name = mutant, ".".join(parts).removesuffix(".__init__")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a loader for the one module."""
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.mutant.file, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutant."""
        exec(compile(self.mutant.source, str(self.mutant.file), "exec"), module.__dict__)


def noticed(mutant: Mutant, limit: float) -> bool:
    """Run the tests on a mutant in a process of its own."""
    child = os.fork()
    if not child:
        import pytest

        sys.meta_path.insert(0, Instead(mutant))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", str(TESTS)])) != 0)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return True  # it never ended, which somebody would notice


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one mutant")
    options = parser.parse_args(arguments)
    import pytest  # noqa: F401 - imported once, before the forks
    import torch  # noqa: F401

    files = [f for each in FOLDERS for f in sorted((SOURCE / each).glob("*.py"))]
    every = [m for file in files if options.only in file.name for m in mutants_of(file)]
    chosen = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    survivors = []
    for number, mutant in enumerate(chosen, 1):
        where = f"{mutant.file.relative_to(SOURCE)}:{mutant.line}"
        killed = noticed(mutant, options.limit)
        print(f"{number}/{len(chosen)} {'killed' if killed else 'SURVIVED'} {where} {mutant.what}")
        sys.stdout.flush()
        survivors += [] if killed else [f"{where}  {mutant.what}"]
    print(f"\n{len(chosen) - len(survivors)} of {len(chosen)} mutants killed, {len(every)} in all")
    print("\n".join(survivors))


if __name__ == "__main__":
    main()
