"""Prune one tensor by any algorithm that a plugin registers."""

import copy
from typing import Any

from torch import Tensor
from torch.nn import Module, Sequential

from prune_core.errors import ConfigError
from prune_core.registry import get_pruner
from prune_filter.functional.custom import custom_from_mask
from prune_filter.functional.removal import is_pruned, remove


def criterion(
    module: Module, name: str, algorithm: str, *, sparsity: float, **options: Any
) -> Module:
    """Prune a module's weight as a registered algorithm would.

    Unlike `amount` elsewhere, `sparsity` is the ratio of the whole tensor, as in a `config_list`:
    what is pruned already counts.

    Args:
        module: the module, changed in place.
        name: the name of its weight.
        algorithm: the name of a registered pruner, such as `"fpgm"`.
        sparsity: how much of the tensor is pruned afterwards, from 0 to less than 1.
        **options: further arguments of the pruner. `calibrate` gets a model that holds this
            module alone.

    Returns:
        `module`.

    Raises:
        ConfigError: the algorithm does not prune `name` of such a module.

    Example:
        ```python
        import prune_core.functional as prune

        prune.criterion(layer, "weight", "nm", sparsity=0.5, n=2, m=4)
        ```
    """
    plain = copy.deepcopy(module)
    before: Tensor | None = None
    if is_pruned(module) and hasattr(module, f"{name}_mask"):
        before = getattr(module, f"{name}_mask")
        remove(plain, name)
    config_list = [{"op_names": ["0"], "sparsity": sparsity}]
    pruner = get_pruner(algorithm, framework="torch")(Sequential(plain), config_list, **options)
    if before is not None:
        pruner.load_masks({"0": {name: before}})
    _, masks = pruner.compress()
    if name not in masks["0"] or name.endswith("bias"):
        raise ConfigError(
            f"name is {name!r}; {algorithm!r} prunes {next(iter(masks['0']))!r} of a "
            f"{type(module).__name__}."
        )
    return custom_from_mask(module, name, masks["0"][name])
