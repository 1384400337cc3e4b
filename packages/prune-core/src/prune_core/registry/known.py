"""Which distribution of this project brings which name.

Only for the sentence "`pip install prune-filter` brings it"; lookups never read this table, and a
test compares it with what the distributions register.
"""

__all__ = ["KNOWN", "distributions_of"]

KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "prune-core": {
        "allocator": ("bank", "global", "nm", "normal"),
        "collector": ("activation", "activation_gradient", "gradient", "weight"),
        "metric": ("distance", "norm", "straight"),
        "schedule": ("constant", "cubic", "geometric", "linear", "one_cycle"),
    },
    "prune-filter": {
        "collector": ("gradient_flow", "sparse_scale", "synaptic_flow", "taylor"),
        "metric": ("random",),
        "pruner": (
            "apoz",
            "fpgm",
            "grasp",
            "group_taylor",
            "hrank",
            "l1",
            "l2",
            "level",
            "mean_activation",
            "movement",
            "nm",
            "random",
            "random_weight",
            "slim",
            "snip",
            "synflow",
            "taylorfo",
        ),
    },
    "prune-lottery": {"pruner": ("lottery_ticket",)},
    "prune-speedup": {"allocator": ("dependency_aware",), "engine": ("torch",)},
    "prune-tf": {
        "pruner": (
            "apoz",
            "block",
            "fpgm",
            "l1",
            "l2",
            "level",
            "mean_activation",
            "nm",
            "slim",
            "taylorfo",
        ),
    },
    "prune-schedule": {
        "pruner": (
            "admm",
            "agp",
            "amc",
            "autocompress",
            "constant",
            "gradual",
            "linear",
            "netadapt",
            "one_cycle",
            "sensitivity",
            "simulated_annealing",
        )
    },
}


def distributions_of(kind: str | None, name: str) -> list[str]:
    """Return the distributions of this project that bring a name, of one kind or of any."""
    return [
        distribution
        for distribution, kinds in KNOWN.items()
        if any(name in names for its_kind, names in kinds.items() if kind in (None, its_kind))
    ]
