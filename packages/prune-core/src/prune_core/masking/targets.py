"""From a model and a `config_list` to the modules that will be masked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prune_core.config import Algorithm, Entry, ModuleInfo, match
from prune_core.config.tied import leave_out_tied
from prune_core.errors import ConfigError
from prune_core.masking.axes import masked_names, weight_name
from prune_core.masking.recurrent import is_recurrent
from prune_core.masking.sharded import is_sharded
from prune_core.masking.wrapper import PrunerModuleWrapper
from prune_core.traversal import named_modules

__all__ = ["Target", "find_targets", "modules_of", "tied_layers"]

Named = Sequence[tuple[str, nn.Module]]


@dataclass(frozen=True, slots=True)
class Target:
    """One module that will be masked, and the settings for it."""

    name: str
    module: nn.Module
    config: dict[str, Any]


def modules_of(model: nn.Module) -> list[ModuleInfo]:
    """Return what matching needs to know of a model's modules, the model itself left out."""
    return _described(model, _weights(named_modules(model)))


def _weights(modules: Named) -> dict[nn.Module, str | None]:
    """Return the name of the weight of each module that has one."""
    return {module: weight_name(module) for _, module in modules}


def _described(model: nn.Module, weights: Mapping[nn.Module, str | None]) -> list[ModuleInfo]:
    names: dict[nn.Module, list[str]] = defaultdict(list)
    for name, module in named_modules(model, every_name=True):
        if module is not model:
            names[module].append(name)
    return [
        ModuleInfo(
            name=first,
            type_name=type(module).__name__,
            types=tuple([base.__name__ for base in type(module).__mro__]),
            aliases=tuple(aliases),
            has_weight=weights[module] is not None,
            whole_channels=is_recurrent(module),
            lacks=_lacks(module, weights[module]),
        )
        for module, (first, *aliases) in names.items()
    ]


def _lacks(module: nn.Module, weight: str | None) -> str:
    if is_recurrent(module):
        return (
            "loses whole hidden units only, and takes an algorithm that prunes output channels, "
            "such as 'l1'."
        )
    if weight is not None:
        return ""
    if isinstance(module, nn.MultiheadAttention):
        return "has no weight of its own to mask: its kdim and vdim would have to be its embed_dim."
    if isinstance(getattr(module, "weight", None), Tensor):
        return (
            "has no weight of its own to mask, but one that is computed from other parameters, as "
            "prune_core.functional and parametrizations do it. Make it plain first."
        )
    if "quantized" in type(module).__module__.split("."):
        return "is quantized, and its weight is packed. Prune first, and quantize what is left."
    return ""


def find_targets(model: nn.Module, entries: Sequence[Entry], algorithm: Algorithm) -> list[Target]:
    """Return the modules that the entries select, each with its settings.

    Raises:
        ConfigError: When the entries do not fit the model, or a module cannot be masked.
    """
    named = named_modules(model)
    wrapped = [module.name for _, module in named if isinstance(module, PrunerModuleWrapper)]
    if wrapped:
        raise ConfigError(
            f"The model is wrapped already ({wrapped[0]!r} among others). Unwrap it first: "
            "`pruner.unwrap()`, or `prune_core.unwrap(model)` when the pruner is gone."
        )
    weights = _weights(named)
    _check_not_quantised(named)
    _check_not_sharded(named, weights)
    modules = _described(model, weights)
    if not modules:
        raise ConfigError(
            f"The model is a single {type(model).__name__}; wrappers go inside a model. "
            "Put it into torch.nn.Sequential first."
        )
    settings = match(entries, modules, algorithm)
    by_name = dict(named)
    targets = [Target(name, by_name[name], config) for name, config in settings.items()]
    for target in targets:
        _check_weight(target)
    tied = leave_out_tied(settings, entries, _sharing(named, targets))
    return [target for target in targets if target.name not in tied]


def _check_not_quantised(modules: Named) -> None:
    """Refuse a model that computes with rounded numbers; told by name, so nothing is imported."""
    for name, module in modules:
        if type(module).__name__ in ("QuantizerModuleWrapper", "IntegerModule"):
            raise ConfigError(
                f"{name!r} is quantised, and pruning comes first: take the quantizer out with "
                "quantizer.unwrap(), prune, and quantise what is left."
            )
        for parameter in module._parameters.values():
            if type(parameter).__module__.partition(".")[0] == "torchao":
                raise ConfigError(
                    f"{name!r} is quantised (its weight is a {type(parameter).__name__}), and "
                    "pruning comes first: prune the model that it was made of."
                )


def _check_not_sharded(modules: Named, weights: Mapping[nn.Module, str | None]) -> None:
    """Refuse layers that `fully_shard` was called on: they are whole only inside of themselves."""
    for name, module in modules:
        weight = weights[module]
        if weight is not None and is_sharded(getattr(module, weight)):
            raise ConfigError(
                f"{name}.{weight} is cut over several processes already. Make the pruner first, "
                "and then call fully_shard() on the model, or on parts of it that contain the "
                "wrapped layers."
            )


def _check_weight(target: Target) -> None:
    if isinstance(target.module, torch.jit.ScriptModule):
        raise ConfigError(
            f"{target.name!r} was compiled by torch.jit.script, and a compiled layer takes no "
            "masks. Leave it out with "
            f"{{'exclude': True, 'op_names': [{target.name!r}]}}, or prune before compiling."
        )
    name = weight_name(target.module)
    assert name is not None, "match() selects only what has a weight"
    if is_lazy(target.module.get_parameter(name)):
        raise ConfigError(
            f"{target.name!r}, a {type(target.module).__name__}, does not know its size yet; run "
            "the model once before pruning it."
        )


def tied_layers(model: nn.Module) -> list[str]:
    """Return the names of the modules whose weight is another module's too."""
    modules = named_modules(model)
    shared = {parameter for parameter, names in _holders(modules).items() if len(names) > 1}
    return [
        name
        for name, module in (modules if shared else ())
        if (weight := weight_name(module)) and id(getattr(module, weight)) in shared
    ]


def _sharing(modules: Named, targets: Sequence[Target]) -> dict[str, tuple[str, list[str]]]:
    """For targets that share a tensor that would be masked: its name, and its other names."""
    holders = _holders(modules)
    found: dict[str, tuple[str, list[str]]] = {}
    for target in targets:
        for name in masked_names(target.module):
            own = f"{target.name}.{name}"
            others = [h for h in holders[id(target.module.get_parameter(name))] if h != own]
            if others:
                found.setdefault(target.name, (own, others))
    return found


def _holders(modules: Named) -> Mapping[int, list[str]]:
    """Return the names under which modules hold each parameter, one per module."""
    holders: dict[int, list[str]] = defaultdict(list)
    for prefix, module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                holders[id(parameter)].append(f"{prefix}.{name}" if prefix else name)
    return holders
