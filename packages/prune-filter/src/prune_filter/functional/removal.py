"""Make pruning permanent, and tell whether a module is pruned."""

from torch.nn import Module

from prune_core.errors import ConfigError, did_you_mean
from prune_filter.functional.method import BasePruningMethod


def remove(module: Module, name: str) -> Module:
    """Make the pruning of a parameter permanent: pruned entries become zeros of the parameter.

    The parameter is the same object as before, under its old name again. Nothing is undone.

    Args:
        module: the module, changed in place.
        name: the name of a pruned tensor.

    Returns:
        `module`.

    Raises:
        ConfigError: a ValueError, `name` is not pruned.

    >>> import torch
    >>> from prune_core.functional import l1_unstructured
    >>> layer = l1_unstructured(torch.nn.Linear(2, 3), "weight", amount=0.5)
    >>> sorted(remove(layer, "weight").state_dict())
    ['bias', 'weight']
    """
    methods = _methods(module)
    for key, method in methods.items():
        if method._tensor_name == name:
            method.remove(module)
            del module._forward_pre_hooks[key]
            return module
    pruned = [str(method._tensor_name) for method in methods.values()]
    raise ConfigError(
        f"{name!r} of {type(module).__name__} is not pruned; only {', '.join(pruned) or 'nothing'} "
        f"is.{did_you_mean(name, pruned)}"
    )


def is_pruned(module: Module) -> bool:
    """Return whether `module`, or any module inside it, has a pruned tensor.

    >>> import torch
    >>> is_pruned(torch.nn.Linear(5, 7))
    False
    """
    return any(_methods(submodule) for submodule in module.modules())


def _methods(module: Module) -> dict[int, BasePruningMethod]:
    hooks = module._forward_pre_hooks.items()
    return {key: hook for key, hook in hooks if isinstance(hook, BasePruningMethod)}
