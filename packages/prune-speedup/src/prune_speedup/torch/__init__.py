"""The engine for torch models: `prune_core.get_engine("torch")` is this module.

Names are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_speedup.engine.graph import Call as Call
    from prune_speedup.engine.graph import Graph as Graph
    from prune_speedup.engine.units import Unit as Unit
    from prune_speedup.engine.units import UnitGroup as UnitGroup
    from prune_speedup.engine.units import Units as Units
    from prune_speedup.one_shot import prune as prune
    from prune_speedup.pruning.coupling import Coupling as Coupling
    from prune_speedup.pruning.dependency_aware import (
        DependencyAwareAllocator as DependencyAwareAllocator,
    )
    from prune_speedup.torch.analysis import units as units
    from prune_speedup.torch.checkpoint.shrink import shrink_checkpoint as shrink_checkpoint
    from prune_speedup.torch.counter import count_flops_params as count_flops_params
    from prune_speedup.torch.depth.find import Block as Block
    from prune_speedup.torch.depth.find import Blocks as Blocks
    from prune_speedup.torch.depth.find import blocks as blocks
    from prune_speedup.torch.depth.left_out import left_out as left_out
    from prune_speedup.torch.depth.remove import remove_blocks as remove_blocks
    from prune_speedup.torch.depth.report import RemovalReport as RemovalReport
    from prune_speedup.torch.mixtures.find import experts as experts
    from prune_speedup.torch.mixtures.mixture import Experts as Experts
    from prune_speedup.torch.mixtures.mixture import Mixture as Mixture
    from prune_speedup.torch.mixtures.remove import remove_experts as remove_experts
    from prune_speedup.torch.optimizers import shrink_optimizer as shrink_optimizer
    from prune_speedup.torch.pretrained import from_pretrained as from_pretrained
    from prune_speedup.torch.pruned_file import load_pruned as load_pruned
    from prune_speedup.torch.record.recorder import Recorder as Recorder
    from prune_speedup.torch.record.recorder import trace as trace
    from prune_speedup.torch.report import SpeedupReport as SpeedupReport
    from prune_speedup.torch.rules import rule as rule
    from prune_speedup.torch.speedup import ModelSpeedup as ModelSpeedup
    from prune_speedup.torch.speedup import shrink as shrink
    from prune_speedup.torch.surgery import save_pruned as save_pruned
    from prune_speedup.torch.vocabulary.find import vocabularies as vocabularies
    from prune_speedup.torch.vocabulary.remove import remove_tokens as remove_tokens
    from prune_speedup.torch.vocabulary.token_map import TokenMap as TokenMap
    from prune_speedup.torch.vocabulary.tokenizer import smaller_tokenizer as smaller_tokenizer
    from prune_speedup.torch.vocabulary.tokenizer import used_tokens as used_tokens
    from prune_speedup.torch.vocabulary.vocabulary import Vocabularies as Vocabularies
    from prune_speedup.torch.vocabulary.vocabulary import Vocabulary as Vocabulary

_HOMES = {
    "engine.graph": ("Call", "Graph"),
    "engine.units": ("Unit", "UnitGroup", "Units"),
    "one_shot": ("prune",),
    "pruning.coupling": ("Coupling",),
    "pruning.dependency_aware": ("DependencyAwareAllocator",),
    "torch.analysis": ("units",),
    "torch.checkpoint.shrink": ("shrink_checkpoint",),
    "torch.counter": ("count_flops_params",),
    "torch.depth.find": ("Block", "Blocks", "blocks"),
    "torch.depth.left_out": ("left_out",),
    "torch.depth.remove": ("remove_blocks",),
    "torch.depth.report": ("RemovalReport",),
    "torch.mixtures.find": ("experts",),
    "torch.mixtures.mixture": ("Experts", "Mixture"),
    "torch.mixtures.remove": ("remove_experts",),
    "torch.optimizers": ("shrink_optimizer",),
    "torch.pretrained": ("from_pretrained",),
    "torch.pruned_file": ("load_pruned",),
    "torch.record.recorder": ("Recorder", "trace"),
    "torch.report": ("SpeedupReport",),
    "torch.rules": ("rule",),
    "torch.speedup": ("ModelSpeedup", "shrink"),
    "torch.surgery": ("save_pruned",),
    "torch.vocabulary.find": ("vocabularies",),
    "torch.vocabulary.remove": ("remove_tokens",),
    "torch.vocabulary.token_map": ("TokenMap",),
    "torch.vocabulary.tokenizer": ("smaller_tokenizer", "used_tokens"),
    "torch.vocabulary.vocabulary": ("Vocabularies", "Vocabulary"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'prune_speedup.torch' has no attribute {name!r}")
    value = getattr(import_module(f"prune_speedup.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
