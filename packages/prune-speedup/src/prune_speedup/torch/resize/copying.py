"""See to it that copies of a module keep the sizes that were changed in it.

Most modules are copied with all their attributes. A class may say otherwise, in `__reduce__` or
`__deepcopy__`, and make a new object from what its constructor was told; then the attributes are
kept by the class that the module gets (see `smaller`).
"""

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from prune_speedup.torch.resize.smaller import correct, corrections_of, kept_attributes

__all__ = ["keep_in_copies"]


def keep_in_copies(model: nn.Module, changed: Mapping[str, Iterable[str]]) -> None:
    """Make sure that whoever copies a module copies what was changed in it.

    Args:
        model: A model.
        changed: Attributes by the name of their module.
    """
    for name, attributes in changed.items():
        module = model.get_submodule(name)
        wanted = {key: vars(module)[key] for key in attributes if key in vars(module)}
        if wanted and _copies_by_itself(module) and _forgotten(module, wanted):
            kept = {**kept_attributes(module), **wanted}
            correct(module, corrections_of(module), tuple(kept.items()))


def _copies_by_itself(module: nn.Module) -> bool:
    """Whether a class, or the module alone, says how it is copied; torch's copies all there is."""
    kind: Any = type(module)
    return (
        hasattr(kind, "__deepcopy__")
        or "__deepcopy__" in vars(module)
        or kind.__reduce__ is not object.__reduce__
        or kind.__reduce_ex__ is not object.__reduce_ex__
        or kind.__new__ is not object.__new__
        or any(getattr(kind, each) is not getattr(nn.Module, each) for each in _STATE)
    )


_STATE = "__getstate__", "__setstate__"


def _forgotten(module: nn.Module, wanted: dict[str, Any]) -> bool:
    """Whether a copy lacks any of these attributes; no tensor is copied for it."""
    inner = [*module.children(), *module.parameters(), *module.buffers()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody has asked for these copies
        try:
            copies = [copy.deepcopy(module, {id(each): each for each in inner}), _reduced(module)]
        except Exception:
            return False  # what cannot be copied loses nothing by it
    return any(vars(each).get(key) != value for each in copies for key, value in wanted.items())


def _reduced(module: nn.Module) -> Any:
    """What `pickle` would make of a module."""
    reduced: Any = module.__reduce_ex__(2)
    function, args, *rest = reduced
    made = function(*args)
    if rest and rest[0] is not None:
        made.__setstate__(rest[0])
    return made
