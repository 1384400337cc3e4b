"""`config_list`: which modules of a model are pruned or quantised, and how."""

from prune_core.config.files import load_config
from prune_core.config.keys import COMMON_KEYS, OPTIONAL_KEYS, PRUNING, Key, Purpose, keys_for
from prune_core.config.match import Algorithm, ModuleInfo, match
from prune_core.config.parse import Entry, parse
from prune_core.config.quantising import QUANTISING, bits_of

__all__ = [
    "COMMON_KEYS",
    "OPTIONAL_KEYS",
    "PRUNING",
    "QUANTISING",
    "Algorithm",
    "Entry",
    "Key",
    "ModuleInfo",
    "Purpose",
    "bits_of",
    "keys_for",
    "load_config",
    "match",
    "parse",
]
