"""Prune single tensors of a module, as `torch.nn.utils.prune` does.

Names, hooks, buffers and kinds of errors are those of `torch.nn.utils.prune`, so a script that uses
it runs once its import is changed. In addition, you can deep-copy, pickle, compile and export a
pruned module at any time, its pruned tensors are never out of date, and global pruning makes no
copy of the model.

>>> import prune_core.functional as prune
>>> from torch import nn
>>> prune.l1_unstructured(nn.Conv2d(1, 6, 5), name="weight", amount=0.3)
Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))
"""

from prune_filter.functional.amounts import _compute_nparams_toprune as _compute_nparams_toprune
from prune_filter.functional.amounts import _validate_pruning_amount as _validate_pruning_amount
from prune_filter.functional.amounts import (
    _validate_pruning_amount_init as _validate_pruning_amount_init,
)
from prune_filter.functional.channels import _compute_norm as _compute_norm
from prune_filter.functional.channels import _validate_pruning_dim as _validate_pruning_dim
from prune_filter.functional.channels import (
    _validate_structured_pruning as _validate_structured_pruning,
)
from prune_filter.functional.custom import CustomFromMask, custom_from_mask
from prune_filter.functional.globally import global_unstructured
from prune_filter.functional.method import BasePruningMethod, PruningContainer
from prune_filter.functional.registered import criterion
from prune_filter.functional.removal import is_pruned, remove
from prune_filter.functional.structured import (
    LnStructured,
    RandomStructured,
    ln_structured,
    random_structured,
)
from prune_filter.functional.unstructured import (
    Identity,
    L1Unstructured,
    RandomUnstructured,
    identity,
    l1_unstructured,
    random_unstructured,
)

__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "criterion",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]
