"""A module that computes with quantised weights, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from prune_core.errors import ConfigError
from prune_core.masking import PrunerModuleWrapper, weight_name
from prune_quant.rounding.fake import FakeQuantizer

__all__ = ["QuantizerModuleWrapper", "on_first", "run_quantised"]


class QuantizerModuleWrapper(nn.Module):
    """Stands in a model for the module that it wraps, and rounds what goes in, through and out.

    Parameters stay the objects that they are. The wrapped module may be masked by a pruner: then
    what is rounded is the masked weight, and zeros stay zeros.

    Attributes:
        module: The wrapped module, or the wrapper of a pruner around it.
        name: Its name in the model.
        config: The settings that the `config_list` gives it.
        weight_quantizer: Rounds its weight, or None.
        input_quantizer: Rounds its first input, or None.
        output_quantizer: Rounds its first output, or None.
    """

    module: nn.Module
    weight_quantizer: FakeQuantizer | None
    input_quantizer: FakeQuantizer | None
    output_quantizer: FakeQuantizer | None

    def __init__(
        self,
        module: nn.Module,
        name: str,
        config: Mapping[str, Any],
        quantizers: Mapping[str, FakeQuantizer],
    ) -> None:
        super().__init__()
        self.name, self.config = name, dict(config)
        self.training = module.training
        for kind in ("weight", "input", "output"):
            self.register_module(f"{kind}_quantizer", quantizers.get(kind))
        self.module = module

    @property
    def plain_module(self) -> nn.Module:
        """The module itself, without the wrapper of a pruner."""
        module = self._modules["module"]
        assert module is not None
        return module.module if isinstance(module, PrunerModuleWrapper) else module

    @property
    def quantizers(self) -> dict[str, FakeQuantizer]:
        """`{"weight", "input" or "output": what rounds it}`."""
        kinds = ("weight", "input", "output")
        held = {kind: self._modules[f"{kind}_quantizer"] for kind in kinds}
        return {kind: q for kind, q in held.items() if isinstance(q, FakeQuantizer)}

    @property
    def weight_key(self) -> str:
        """The name of the parameter that is its weight."""
        return weight_name(self.plain_module) or "weight"

    def dense_weight(self) -> Tensor:
        """Return the weight before it is rounded, masked where it is masked."""
        return self._masked()[self.weight_key]

    def _masked(self) -> dict[str, Tensor]:
        """Return the parameters that are masked, and the weight."""
        module = self._modules["module"]
        if isinstance(module, PrunerModuleWrapper):
            return {name: module.masked(name) for name in module.masked_names}
        if self._modules["weight_quantizer"] is None:
            return {}
        return {self.weight_key: self.plain_module.get_parameter(self.weight_key)}

    def seen_by_forward(self) -> dict[str, Tensor]:
        """Return the parameters that the forward sees in the place of the module's own."""
        seen = self._masked()
        if (rounds := self._modules["weight_quantizer"]) is not None:
            seen[self.weight_key] = rounds(seen[self.weight_key])
        return seen

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module on what is rounded."""
        quantizers = self.quantizers
        return run_quantised(
            self.plain_module,
            self.seen_by_forward(),
            args,
            kwargs,
            quantizers.get("input"),
            quantizers.get("output"),
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            # Python asks for `__deepcopy__` and the like; the module's own would lose the steps.
            if "module" not in modules or name.startswith("__"):
                raise
            # Attention reads the weight of its last layer instead of calling it.
            if modules["weight_quantizer"] is not None and name == self.weight_key:
                return self.seen_by_forward()[name]
            return getattr(modules["module"], name)

    # Names in a state dict are those that the module would have without this wrapper.

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """Return what a plain module of this kind would, and the steps of the quantizers."""
        state = super().state_dict(
            *args, destination=destination, prefix=prefix, keep_vars=keep_vars
        )
        inner = f"{prefix}module."
        for key in [key for key in state if key.startswith(inner)]:
            state[prefix + key.removeprefix(inner)] = state.pop(key)
        versions = getattr(state, "_metadata", {})
        for key in [key for key in versions if f"{key}.".startswith(inner)]:
            versions[prefix[:-1] + key.removeprefix(inner[:-1])] = versions[key]
        return state

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        ours = tuple(f"{prefix}{kind}_quantizer." for kind in ("weight", "input", "output"))
        for key in [key for key in state_dict if key.startswith(prefix)]:
            if not key.startswith((*ours, f"{prefix}module.")):
                state_dict[f"{prefix}module.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def run_quantised(
    module: nn.Module,
    seen: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    input_quantizer: Any,
    output_quantizer: Any,
) -> Any:
    """Run a module with other parameters, and round its first input and its first output."""
    if input_quantizer is not None:
        if args:
            args = (on_first(args[0], input_quantizer), *args[1:])
        else:
            first = next(iter(kwargs))
            kwargs = {**kwargs, first: on_first(kwargs[first], input_quantizer)}
    output = functional_call(module, dict(seen), args, dict(kwargs))
    return output if output_quantizer is None else on_first(output, output_quantizer)


def on_first(value: Any, rounds: Any) -> Any:
    """Round a tensor, or the first in a tuple or list of them."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise ConfigError(
                f"What is to be quantised holds {str(value.dtype).removeprefix('torch.')}, such as "
                "indices; only floating-point numbers can be. Leave 'input' out of quant_types."
            )
        return rounds(value)
    if type(value) in (tuple, list) and value:
        return type(value)([on_first(value[0], rounds), *value[1:]])
    raise ConfigError(
        f"A {type(value).__name__} cannot be quantised as an input or output; it must be a tensor, "
        "or a tuple that begins with one. Exclude the module, or quantise the layers inside of it."
    )
