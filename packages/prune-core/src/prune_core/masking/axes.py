"""Which tensor of a module is its weight, and which axis of it makes output channels."""

from torch import nn

from prune_core.masking.recurrent import hidden_names, is_recurrent

__all__ = ["masked_names", "output_axis", "weight_name"]


def weight_name(module: nn.Module) -> str | None:
    """Return the name of the parameter that a mask on this module is meant for.

    The hidden units of a recurrent layer are told by its first hidden weight.
    """
    if is_recurrent(module):
        return hidden_names(module)[0]
    for name in ("weight", "in_proj_weight"):
        if _has_parameter(module, name):
            return name
    return None


def _has_parameter(module: nn.Module, name: str) -> bool:
    """Whether an attribute is a parameter, which most often the module holds itself."""
    own = module._parameters
    if name in own and type(own[name]) is nn.Parameter:
        return True
    return isinstance(getattr(module, name, None), nn.Parameter)


def masked_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the parameters that are masked: the weight, and the bias if any.

    Of a recurrent layer those are all that a hidden unit has a part in.
    """
    if is_recurrent(module):
        return hidden_names(module)
    weight = weight_name(module)
    if weight is None:
        return ()
    bias = weight.removesuffix("weight") + "bias"
    return (weight, bias) if _has_parameter(module, bias) else (weight,)


def output_axis(module: nn.Module) -> int:
    """Return the axis of the weight along which output channels lie.

    Transposed convolutions and the `Conv1D` of transformers models store the input first. They
    are told apart by what they have, so a model's own classes are understood as well.
    """
    own = vars(module)
    if own.get("transposed") or "nf" in own:
        return 1
    return 0
