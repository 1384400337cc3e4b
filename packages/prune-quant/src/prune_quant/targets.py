"""From a model and a `config_list` to the modules that will be quantised."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from prune_core.config import QUANTISING, Algorithm, Entry, ModuleInfo, bits_of, match
from prune_core.errors import ConfigError
from prune_core.masking import bare, modules_of, replace_modules, weight_name, wrappers_in
from prune_quant.wrapper import QuantizerModuleWrapper

__all__ = ["QUANTISED_TYPES", "Quantises", "Target", "find_targets"]

QUANTISED_TYPES = (
    *(f"Conv{n}d" for n in (1, 2, 3)),
    *(f"ConvTranspose{n}d" for n in (1, 2, 3)),
    *("Linear", "Conv1D", "Bilinear", "Embedding", "EmbeddingBag", "MultiheadAttention"),
)
"""Modules whose weight is quantised; `default` stands for these."""


@dataclass(frozen=True, slots=True)
class Quantises(Algorithm):
    """What matching knows of a quantizer."""

    def takes(self, module: ModuleInfo, entry: Entry) -> bool:
        """Whether a module has what the entry wants quantised.

        Inputs and outputs are there of any module, so one without a weight, such as a ReLU, has to
        be meant: by its type or its name, and not only by a part of it.
        """
        if "weight" in entry.settings.get("quant_types", ()):
            return module.has_weight and module.is_a(QUANTISED_TYPES)
        return entry.op_types is not None or not {*module.names}.isdisjoint(entry.op_names)

    def rule(self, refused: Any) -> str:
        """What it quantises, as the end of a message."""
        return (
            f"{self.name} quantises the weights of {', '.join(QUANTISED_TYPES)}. Any other module "
            "can have its 'input' and 'output' quantised."
        )


@dataclass(frozen=True, slots=True)
class Target:
    """One module that will be quantised: what stands in the model, and how it is quantised."""

    name: str
    module: nn.Module
    config: dict[str, Any]
    bits: dict[str, int]


def find_targets(
    model: nn.Module,
    entries: Sequence[Entry],
    algorithm_name: str,
    default_types: tuple[str, ...],
    default_bits: int,
) -> list[Target]:
    """Return the modules that the entries select, as they are named without masks.

    Raises:
        ConfigError: When the entries do not fit the model, or a module cannot be quantised.
    """
    quantised = [m.name for m in model.modules() if isinstance(m, QuantizerModuleWrapper)]
    if quantised:
        raise ConfigError(
            f"The model is wrapped by a quantizer already ({quantised[0]!r} among others). Take it "
            "out first: quantizer.unwrap()."
        )
    algorithm = Quantises(algorithm_name, default_types, purpose=QUANTISING)
    masked = {wrapper.module: wrapper for wrapper in wrappers_in(model).values()}
    with ExitStack() as stack:
        replace_modules(model, {wrapper: module for module, wrapper in masked.items()})
        stack.callback(replace_modules, model, masked)
        inside = stack.enter_context(bare(model))
        modules = modules_of(inside)
        if not modules:
            raise ConfigError(
                f"The model is a single {type(inside).__name__}; wrappers go inside a model. "
                "Put it into torch.nn.Sequential first."
            )
        settings = match(entries, modules, algorithm)
        found = {name: inside.get_submodule(name) for name in settings}
    targets = []
    for name, module in found.items():
        config = settings[name]
        bits = bits_of(config, default_bits)
        targets.append(Target(name, masked.get(module, module), config, bits))
    for target in targets:
        _check(target.name, found[target.name], target.bits)
    return targets


def _check(name: str, module: nn.Module, bits: dict[str, int]) -> None:
    kind = type(module).__name__
    out = f"Leave it out with {{'exclude': True, 'op_names': [{name!r}]}}."
    if "input" in bits and kind in ("Embedding", "EmbeddingBag"):
        raise ConfigError(
            f"The input of {name!r}, a {kind}, are indices, which are whole numbers already. Give "
            "it an entry of its own, later in config_list: 'quant_types': ['weight']."
        )
    if "weight" not in bits:
        return
    key = weight_name(module)
    assert key is not None, "match() selects only what has a weight"
    weight = module.get_parameter(key)
    if is_lazy(weight):
        raise ConfigError(f"{name!r}, a {kind}, does not know its size yet; run the model once.")
    if not weight.is_floating_point():
        raise ConfigError(f"{name}.{key} holds {weight.dtype}, so it is quantised already. {out}")
    if not weight.is_meta and not bool(weight.isfinite().all()):
        raise ConfigError(f"{name}.{key} holds values that are not finite, and has no range. {out}")
