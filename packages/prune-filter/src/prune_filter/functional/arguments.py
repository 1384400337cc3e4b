"""Check what a caller hands over before anything is changed."""

from torch import Tensor
from torch.nn import Module, Parameter

from prune_core.errors import did_you_mean
from prune_filter.functional._errors import ArgumentTypeError, MissingAttributeError, MisuseError


def tensor_to_prune(module: Module, name: str, *, pruned: bool) -> Tensor:
    """Return the tensor `name`, which must be a parameter unless it is `pruned` already."""
    if not hasattr(module, name):
        known = [key for key, parameter in module._parameters.items() if parameter is not None]
        raise MissingAttributeError(
            f"{type(module).__name__} has no parameter {name!r}; it has "
            f"{', '.join(known) or 'none'}.{did_you_mean(name, known)}"
        )
    tensor = getattr(module, name)
    if not isinstance(tensor, Tensor if pruned else Parameter):
        raise ArgumentTypeError(
            f"{name!r} of {type(module).__name__} is a {type(tensor).__name__}; only a Parameter "
            "that the module itself owns can be pruned."
        )
    assert isinstance(tensor, Tensor)
    return tensor


def checked_scores(scores: Tensor | None, tensor: Tensor, what: str) -> Tensor:
    """Return `scores`, which must have the shape of `tensor`, or `tensor` where there are none."""
    if scores is None:
        return tensor
    if scores.shape != tensor.shape:
        raise MisuseError(
            f"importance_scores have shape {tuple(scores.shape)} and {what} has "
            f"{tuple(tensor.shape)}; the shapes must be the same."
        )
    return scores
