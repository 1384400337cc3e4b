"""Names of layers, whatever the model was wrapped in when they were written down.

`DataParallel` and `torch.compile` put a model, or a part of it, into a module whose child appears
in every name: `conv` becomes `module.conv`, `layer.conv` becomes `layer._orig_mod.conv`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from prune_core.errors import MaskError

__all__ = ["WRAPPED", "by_known_names", "find_names", "without_wrappers"]

WRAPPED = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module"})
"""What the child of such a module is called."""

_T = TypeVar("_T")


def find_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return for each name the known one that it means, though written down in another wrapping.

    A name that means none of them, or could mean several, stands for itself.

    >>> find_names(["module.conv", "fc", "bias"], ["conv", "fc"])
    {'module.conv': 'conv', 'fc': 'fc', 'bias': 'bias'}
    >>> find_names(["layer.conv"], ["layer._orig_mod.conv"])
    {'layer.conv': 'layer._orig_mod.conv'}
    """
    names, known = list(names), frozenset(known)
    if known.issuperset(names):
        return {name: name for name in names}
    meant: dict[str, list[str]] = defaultdict(list)
    for name in known:
        meant[without_wrappers(name)].append(name)
    found = {}
    for name in names:
        candidates = [inner for inner in _from_outside(name) if inner in known][:1]
        candidates = candidates or meant[without_wrappers(name)]
        found[name] = candidates[0] if len(candidates) == 1 else name
    return found


def _from_outside(name: str) -> Iterator[str]:
    """Yield a name, and it without what wraps the whole model: a child may be called `module`."""
    yield name
    first, dot, rest = name.partition(".")
    while dot and first in WRAPPED:
        yield rest
        first, dot, rest = rest.partition(".")


def by_known_names(named: Mapping[str, _T], known: Iterable[str]) -> dict[str, _T]:
    """Return what stands under names, such as masks, under the known ones that are meant.

    Raises:
        MaskError: Two names mean the same.
    """
    for name in named:
        if not isinstance(name, str):
            raise MaskError(f"The masks have {name!r}; it must be the name of a module.")
    names = find_names(named, known)
    found: dict[str, _T] = {}
    for name, value in named.items():
        if names[name] in found:
            first = next(other for other in named if names[other] == names[name])
            raise MaskError(f"{first!r} and {name!r} are names of one layer; give one of the two.")
        found[names[name]] = value
    return found


def without_wrappers(name: str) -> str:
    """Return a name, or a part of one, without what wrapping adds.

    >>> without_wrappers("module.layer1")
    'layer1'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPED)
