"""How older releases called `ModelSpeedup`, as a table; see `prune_core.compat`."""

from prune_core.compat import NoEffect, Older

__all__ = ["SPEEDUP"]

_RESIZERS = NoEffect(None, "The hook prune_register_resizers says how a type of module shrinks.")
_RULES = NoEffect(None, "The hook prune_register_rules says what an operator does to channels.")

SPEEDUP = Older(
    # ModelSpeedup(model, dummy_input, masks_file, device, …)
    orders=[("model", "dummy_input", "masks_file", "map_location", "batch_dim", "confidence")],
    renamed={"masks_file": "masks_or_file"},
    ignored={
        **dict.fromkeys(("map_location", "batch_dim", "batch_size", "confidence"), NoEffect()),
        **dict.fromkeys(("graph_module", "garbage_collect_values", "logger"), NoEffect()),
        **dict.fromkeys(("customized_replace_func", "customized_replacers"), _RESIZERS),
        "customized_mask_updaters": _RULES,
    },
)
