"""Rules and a model become targets; targets become masks on modules."""

from prune_core.masking.axes import output_axis, weight_name
from prune_core.masking.bare import bare, check_model
from prune_core.masking.targets import Target, find_targets, modules_of, tied_layers
from prune_core.masking.wrap import replace_modules, unwrap, wrappers_in
from prune_core.masking.wrapper import Masks, PrunerModuleWrapper

__all__ = [
    "Masks",
    "PrunerModuleWrapper",
    "Target",
    "bare",
    "check_model",
    "find_targets",
    "modules_of",
    "output_axis",
    "replace_modules",
    "tied_layers",
    "unwrap",
    "weight_name",
    "wrappers_in",
]
