"""YAML as plain data, and the line of each value.

YAML's safe loader makes no objects; what else a document could do is refused here: keys that
stand twice, values that JSON does not have, and aliases that would grow into millions of values.
"""

from __future__ import annotations

import math
import re
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from prune_core.errors import shown
from prune_recipes.errors import Mistake, RecipeError

__all__ = ["Place", "Text", "read_text"]

Place = tuple[str | int, ...]
"""The way to a value, such as ("prune", 0, "sparsity")."""

_MOST_VALUES = 20_000
_MOST_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """The safe loader, for which 1e-3 is a number and 2026-01-31 is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith("timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    [*"-+0123456789"],
)


class Text:
    """What a file says, and where.

    Attributes:
        path: The file.
        content: The bytes.
        data: The same as plain data.
    """

    def __init__(self, path: str | PathLike[str], content: bytes) -> None:
        self.path, self.content = Path(path), content
        self._lines: dict[Place, int] = {(): 1}
        self._keys: dict[Place, int] = {}
        self.data = self._parsed()

    def line(self, place: Place, *, key: bool = False) -> int:
        """Return the line of a value, or of its key; where there is none, of what surrounds it."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._keys.get(place, self._lines[place]) if key else self._lines[place]

    def mistake(self, place: Place, said: str, *, key: bool = False) -> Mistake:
        """Say that something is wrong at a place."""
        return Mistake(self.line(place, key=key), said)

    def refuse(self, line: int, said: str) -> RecipeError:
        """Return the error of a single mistake."""
        return RecipeError(self.path, [Mistake(line, said)])

    # --- from YAML ------------------------------------------------------------------------------

    def _parsed(self) -> Any:
        if len(self.content) > _MOST_BYTES:
            raise self.refuse(1, f"the file has {len(self.content):,} bytes; a recipe is short.")
        try:
            text = self.content.decode("utf-8")
            loader = _Loader(text)
        except UnicodeDecodeError as error:
            line = self.content[: error.start].count(b"\n") + 1
            raise self.refuse(line, "this is no text in UTF-8.") from None
        except yaml.YAMLError as error:
            raise self.refuse(_line_of(error), _said_by(error)) from None
        try:
            node = loader.get_single_node()
            if node is None:
                raise self.refuse(1, "the file is empty. `prune init` writes a first recipe.")
            self._count = 0
            return self._value(loader, node, (), ())
        except yaml.YAMLError as error:
            raise self.refuse(_line_of(error), _said_by(error)) from None
        except RecursionError:
            raise self.refuse(1, "the file is nested too deeply.") from None
        finally:
            loader.dispose()

    def _value(
        self, loader: _Loader, node: yaml.Node, place: Place, around: tuple[int, ...]
    ) -> Any:
        line = node.start_mark.line + 1
        self._lines[place] = line
        self._count += 1
        if self._count > _MOST_VALUES or id(node) in around:
            raise self.refuse(line, "aliases (&name, *name) make this endless or far too large.")
        around = (*around, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, place, around)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [
                self._value(loader, each, (*place, at), around)
                for at, each in enumerate(node.value)
            ]
        return self._scalar(loader, node, line)

    def _mapping(
        self, loader: _Loader, node: yaml.MappingNode, place: Place, around: tuple[int, ...]
    ) -> dict[str, Any]:
        if node.tag != "tag:yaml.org,2002:map":
            raise self.refuse(node.start_mark.line + 1, f"a recipe has no {node.tag!r}.")
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise self.refuse(line, "a recipe has no merge key '<<'; write the keys out.")
            key = self._scalar(loader, key_node, line)
            if not isinstance(key, str):
                raise self.refuse(
                    line,
                    f"the key {shown(key)} is no text; write it in quotes, '{shown(key)}'. A list "
                    "is written in brackets, [1, 2].",
                )
            if key in made:
                raise self.refuse(line, f"the key {shown(key)} stands twice; keep one.")
            self._keys[(*place, key)] = line
            made[key] = self._value(loader, value_node, (*place, key), around)
        return made

    def _scalar(self, loader: _Loader, node: yaml.Node, line: int) -> Any:
        try:
            value = loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            if isinstance(error, yaml.YAMLError) and "could not determine" in str(error):
                raise self.refuse(
                    line, f"the tag {node.tag!r} would make an object; a recipe holds plain data."
                ) from None
            raise self.refuse(line, f"{shown(node.value)} is no value that YAML has.") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self.refuse(line, f"{value} is no number to calculate with.")
        if value is not None and not isinstance(value, str | int | float | bool):
            raise self.refuse(
                line, f"{shown(node.value)} is a {type(value).__name__}; write it as a text."
            )
        return value


def read_text(path: str | PathLike[str]) -> Text:
    """Read a YAML file; no code runs, whatever it holds.

    Raises:
        RecipeError: When it cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RecipeError(path, [Mistake(0, f"{error.strerror or error}.")]) from None
    except ValueError as error:
        raise RecipeError(shown(path), [Mistake(0, f"no path of a file: {error}.")]) from None
    return Text(path, content)


def _line_of(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark is not None else 1


def _said_by(error: yaml.YAMLError) -> str:
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    hint = " Indent with spaces." if "'\\t'" in said or "\\t" in said else ""
    return f"this is no YAML: {' '.join(str(said).split())}.{hint}"
