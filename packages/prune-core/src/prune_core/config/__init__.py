"""`config_list`: which modules of a model are pruned, and by how much."""

from prune_core.config.files import load_config
from prune_core.config.keys import COMMON_KEYS, OPTIONAL_KEYS, Key, keys_for
from prune_core.config.match import Algorithm, ModuleInfo, match
from prune_core.config.parse import Entry, parse

__all__ = [
    "COMMON_KEYS",
    "OPTIONAL_KEYS",
    "Algorithm",
    "Entry",
    "Key",
    "ModuleInfo",
    "keys_for",
    "load_config",
    "match",
    "parse",
]
