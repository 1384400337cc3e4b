"""What belongs to the tokens of a model, wherever its numbers are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prune_core.errors import ConfigError, did_you_mean
from prune_speedup.torch.heads import Place

__all__ = ["Vocabularies", "Vocabulary"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One set of tokens.

    Attributes:
        name: The module of the first table in which tokens are looked up.
        size: How many tokens there are.
        tables: The tensors with a row for each token.
        heads: The tensors that make a number for each token; a tied head is a table as well.
        corrections: Further tensors with a number for each token, such as a bias of the logits.
        inputs: The inputs of the model that hold token ids, by their paths.
    """

    name: str
    size: int
    tables: tuple[Place, ...]
    heads: tuple[Place, ...]
    corrections: tuple[Place, ...]
    inputs: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many tokens there are."""
        return self.size

    @property
    def lists(self) -> tuple[str, ...]:
        """The modules that hold a module for each token: there are none."""
        return ()

    @property
    def places(self) -> tuple[Place, ...]:
        """Every tensor with something for each token."""
        return tuple(dict.fromkeys((*self.tables, *self.heads, *self.corrections)))

    @property
    def tied(self) -> bool:
        """Whether a head has the numbers of a table."""
        return not {*self.tables}.isdisjoint(self.heads)

    def __str__(self) -> str:
        tables = ", ".join(f"{name}[{axis}]" for name, axis in self.tables)
        own = [f"{name}[{axis}]" for name, axis in (*self.heads, *self.corrections)]
        heads = ", ".join(own) if own else "none"
        return (
            f"{self.name}: {self.size} tokens, read from {', '.join(map(_called, self.inputs))}\n"
            f"├── tables: {tables}\n└── heads: {heads}{' (tied)' if self.tied else ''}"
        )


def _called(path: str) -> str:
    """How a person calls an input: `[1]['input_ids']` is the argument `input_ids`."""
    where, _, rest = path[1:].partition("]")
    return rest.strip("[]'") if where == "1" else f"argument {rest.strip('[]')}"


@dataclass(frozen=True, slots=True)
class Vocabularies:
    """The vocabularies of a model, in the order in which its forward looks tokens up.

    It is a sequence of `Vocabulary`, which can also be had by their names.
    """

    found: tuple[Vocabulary, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Vocabulary]:
        return iter(self.found)

    def __getitem__(self, key: int | str) -> Vocabulary:
        if isinstance(key, int):
            return self.found[key]
        names = [each.name for each in self.found]
        if key not in names:
            raise ConfigError(
                f"The model has no vocabulary {key!r}; it has {', '.join(map(repr, names))}."
                f"{did_you_mean(key, names)}"
            )
        return self.found[names.index(key)]

    def __str__(self) -> str:
        return "\n".join(map(str, self.found)) or "no vocabulary"
