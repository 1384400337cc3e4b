"""Find the places where a model has written down token ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from prune_speedup.torch.mixtures.counts import Carrier, attributes_by_config
from prune_speedup.torch.model_config.numbers import Keys, is_config
from prune_speedup.torch.vocabulary.renumbering import TOKEN_ID, Renumbering, listed_ids
from prune_speedup.torch.vocabulary.vocabulary import Vocabulary

__all__ = ["renumbering_of"]


def renumbering_of(
    model: nn.Module, vocabulary: Vocabulary, carrier: Carrier | None, *, alone: bool
) -> Renumbering:
    """Find the places where a model has written down ids of the tokens of a vocabulary.

    Args:
        model: The model.
        vocabulary: The vocabulary.
        carrier: What carries the config of the model, if anything does.
        alone: Whether what the model as a whole says of tokens is said of this vocabulary.
    """
    every = list(range(vocabulary.size))
    if carrier is None:
        tables = {name.rpartition(".")[0] for name, _ in vocabulary.tables}
        attributes = [
            (path, name)
            for path, module in model.named_modules()
            if path in tables or not type(module).__module__.startswith("torch.")
            for name, value in vars(module).items()
            if TOKEN_ID.search(name) and _is_token(value, vocabulary.size)
        ]
        return Renumbering(every, attributes)
    settings: list[tuple[str, list[str | int]]] = []
    values: dict[Keys, int] = {}
    for keys, value in _ids(carrier.config, vocabulary.size, alone=alone):
        settings.append((carrier.path, [*keys]))
        if isinstance(value, int):
            # Any other number than this one shows which attributes are made of it.
            values[keys] = value - 1 if value else 1
    attributes = [
        (path, name)
        for (path, name) in (attributes_by_config(carrier, values) if values else ())
        if TOKEN_ID.search(name) and _is_token(_attribute(model, path, name), vocabulary.size)
    ]
    generation = [
        path
        for path, module in model.named_modules()
        if alone and getattr(module, "generation_config", None) is not None
    ]
    return Renumbering(every, attributes, settings, generation)


def _ids(config: Any, size: int, *, alone: bool, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """The token ids of a config and of those in it that have no other vocabulary."""
    own = getattr(config, "vocab_size", None)
    for name in dict.fromkeys((*vars(config), *config.to_dict())):
        value = getattr(config, name, None)
        if is_config(value):
            yield from _ids(value, size, alone=True, path=(*path, name))
        elif own in (None, size) and (alone or own == size) and TOKEN_ID.search(name):
            found = listed_ids(value)
            if found and all(_is_token(each, size) for each in found):
                yield (*path, name), value


def _is_token(value: Any, size: int) -> bool:
    return type(value) is int and 0 <= value < size


def _attribute(model: nn.Module, path: str, name: str) -> Any:
    return vars(model.get_submodule(path)).get(name)
