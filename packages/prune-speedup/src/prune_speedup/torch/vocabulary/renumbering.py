"""Token ids that a model has written down, and their new numbers.

A config says which token ends a text, `padding_idx` of an embedding which row stays zero, and a
generation config which tokens are never made. They are known by their names: all that is called
`..._token_id` and the like.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.torch.model_config.numbers import Keys
from prune_speedup.torch.saving import put_config

__all__ = ["TOKEN_ID", "Renumbering", "listed_ids"]

TOKEN_ID = re.compile(r"(^|_)(token_ids?|token_index|padding_idx|pad_idx|pad_index)$")
"""How a setting or an attribute is called that holds token ids."""

_LISTS = ("suppress_tokens", "begin_suppress_tokens")
_SEQUENCES = ("bad_words_ids", "force_words_ids", "sequence_bias")
_TABLES = ("lang_to_id", "task_to_id")


@dataclass(frozen=True, slots=True)
class Renumbering:
    """The places of a model where token ids are written down.

    Attributes:
        stay: The old ids of the tokens that stay.
        attributes: Modules and attributes of them.
        settings: Modules that carry a config, and places in it.
        generation: Modules that carry a generation config.
    """

    stay: list[int]
    attributes: list[tuple[str, str]] = field(default_factory=list)
    settings: list[tuple[str, list[str | int]]] = field(default_factory=list)
    generation: list[str] = field(default_factory=list)

    def special(self, model: nn.Module) -> dict[int, str]:
        """The tokens that are written down somewhere, and where."""
        found: dict[int, str] = {}
        for path, keys in self.settings:
            config: Any = getattr(model.get_submodule(path), "config", None)
            for each in listed_ids(_held(config, keys)):
                found.setdefault(each, f"config.{'.'.join(map(str, keys))}")
        for path in self.generation:
            generation: Any = model.get_submodule(path).generation_config
            for name, value in vars(generation).items():
                for each in listed_ids(value) if TOKEN_ID.search(name) else ():
                    found.setdefault(each, f"generation_config.{name}")
        for path, name in self.attributes:
            value = vars(model.get_submodule(path))[name]
            found.setdefault(value, ".".join(filter(None, (path, name))))
        return found

    def apply(self, model: nn.Module) -> dict[str, tuple[Any, Any]]:
        """Write down the new numbers, in copies of the configs; return those that changed.

        Raises:
            SpeedupError: A token that is written down does not stay.
        """
        new = {old: at for at, old in enumerate(self.stay)}
        changed: dict[str, tuple[Any, Any]] = {}
        modules: dict[str, Any] = dict(model.named_modules(remove_duplicate=False))
        for path, name in self.attributes:
            own: dict[str, Any] = vars(modules[path])
            if not TOKEN_ID.search(name) or type(own.get(name)) is not int:
                raise SpeedupError(f"{name!r} of {path or 'the model'} is no token id.")
            own[name] = _one(own[name], new, name)
        for path in dict.fromkeys(path for path, _ in self.settings):
            carrier: Any = modules[path]
            values: dict[Keys, Any] = {}
            for keys in (keys for other, keys in self.settings if other == path):
                old = _held(carrier.config, keys)
                if not TOKEN_ID.search(str(keys[-1])) or not listed_ids(old):
                    raise SpeedupError(f"{'.'.join(map(str, keys))!r} is no token id.")
                values[tuple(keys)] = _each(old, new, str(keys[-1]))
                if values[tuple(keys)] != old:
                    label = ".".join(map(str, (*filter(None, [path]), *keys)))
                    changed[label] = old, values[tuple(keys)]
            put_config(model, carrier.config, values)
        for path in self.generation:
            vars(modules[path])["generation_config"] = _generation(
                modules[path].generation_config, new
            )
        return changed

    def renamed(self, now: Callable[[str], str | None]) -> Renumbering:
        """The same for a model whose modules have other names."""
        return replace(
            self,
            attributes=[(to, name) for at, name in self.attributes if (to := now(at)) is not None],
            settings=[(to, keys) for at, keys in self.settings if (to := now(at)) is not None],
            generation=[to for at in self.generation if (to := now(at)) is not None],
        )


def listed_ids(value: Any) -> list[int]:
    """The ids in a setting: one, or a list."""
    several = value if isinstance(value, list | tuple) else [value]
    return list(several) if all(type(each) is int for each in several) else []


def _each(value: Any, new: Mapping[int, int], name: str) -> Any:
    """An id, or a list of them, in new numbers."""
    if isinstance(value, list | tuple):
        return type(value)(_one(each, new, name) for each in value)
    return _one(value, new, name)


def _one(old: int, new: Mapping[int, int], name: str) -> int:
    if old not in new:
        raise SpeedupError(f"{name!r} is the token {old}, which does not stay.")
    return new[old]


def _held(config: Any, keys: list[str | int]) -> Any:
    for key in keys:
        config = config[key] if isinstance(key, int) else getattr(config, key, None)
    return config


def _generation(config: Any, new: Mapping[int, int]) -> Any:
    """A generation config with the new ids, and without what is said of tokens that are gone."""
    changed = copy.deepcopy(config)
    for name, value in list(vars(changed).items()):
        if value is None:
            continue
        if name in _LISTS:
            value = [new[each] for each in value if each in new]
        elif name == "sequence_bias" and isinstance(value, list):
            biased = _sequences({tuple(ids): bias for ids, bias in value}, new)
            value = [[list(ids), bias] for ids, bias in biased.items()]
        elif name in _SEQUENCES:
            value = _sequences(value, new)
        elif name in _TABLES:
            value = {key: new[each] for key, each in value.items() if each in new}
        elif name == "forced_decoder_ids":
            value = [[at, each if each is None else new.get(each)] for at, each in value]
        elif TOKEN_ID.search(name) and listed_ids(value):
            # What is no token of this vocabulary stays as it is.
            value = _each(value, {each: each for each in listed_ids(value)} | {**new}, name)
        else:
            continue
        setattr(changed, name, value)
    return changed


def _sequences(value: Any, new: Mapping[int, int]) -> Any:
    """Sequences of tokens that are banned or wanted, without those that cannot be made."""
    if isinstance(value, dict):
        return {
            tuple(new[each] for each in ids): bias
            for ids, bias in value.items()
            if all(each in new for each in ids)
        }
    if not isinstance(value, list):
        return value
    if all(type(each) is int for each in value):
        return [new[each] for each in value] if all(each in new for each in value) else []
    kept = [_sequences(each, new) for each in value]
    return [each for each in kept if each not in ([], None)] or None
