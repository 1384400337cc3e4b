"""What earlier pruning has left for a method, which depends on its `PRUNING_TYPE`."""

from typing import Any

from torch import Tensor

from prune_core.errors import ConfigError
from prune_filter.functional._errors import MissingAttributeError
from prune_filter.functional.channels import _validate_pruning_dim


def left_to(method: object, t: Tensor, mask: Tensor) -> Any:
    """Return the index of the part of `t` that `method` may still prune."""
    kind = pruning_type(method)
    if kind == "unstructured":
        return mask == 1
    if kind == "global":
        return ...
    if kind != "structured":
        raise ConfigError(
            f"{type(method).__name__}.PRUNING_TYPE is {kind!r}; it must be 'unstructured', "
            "'structured' or 'global'."
        )
    dim: int | None = getattr(method, "dim", None)
    if dim is None:
        raise MissingAttributeError(
            f"{type(method).__name__} is structured but has no attribute `dim`; set it to the "
            "dimension that channels are counted along."
        )
    _validate_pruning_dim(t, dim)
    dim %= t.dim()
    channels = mask.sum(dim=[d for d in range(t.dim()) if d != dim]) != 0
    return (*[slice(None)] * dim, channels)


def pruning_type(method: object) -> str:
    """Return what a method acts on, which it has to say."""
    kind: str | None = getattr(method, "PRUNING_TYPE", None)
    if kind is None:
        raise MissingAttributeError(
            f"{type(method).__name__} has no PRUNING_TYPE; set it to 'unstructured', 'structured' "
            "or 'global', so that it can be combined with earlier pruning."
        )
    return kind
