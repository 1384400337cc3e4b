"""A model whose weights are integers, in the form that compilers recognise.

Each quantised module holds its weight as int8. Around it stand the operators "quantise" and
"dequantise" of torch: what a compiler finds between such a pair, it computes with integers.
`torch.compile` does, and in ONNX they become QuantizeLinear and DequantizeLinear, which ONNX
Runtime fuses into its integer kernels. Without a compiler they compute in floating point what the
integers would.
"""

from __future__ import annotations

import copy
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import PruneError
from prune_core.masking import bare, output_axis, replace_modules, unwrap
from prune_quant.batches import run
from prune_quant.rounding.fake import FakeQuantizer
from prune_quant.rounding.grid import integers
from prune_quant.schemes.torchao import torchao
from prune_quant.wrapper import QuantizerModuleWrapper, run_quantised

__all__ = ["IntegerModule", "distance", "integer_model"]

torchao("quantization.pt2e")  # which registers the operators
_ops = torch.ops.quantized_decomposed


class _Rounds(nn.Module):
    """Quantises a tensor to integers of 8 bits or fewer, and takes it back."""

    def __init__(self, quantizer: FakeQuantizer) -> None:
        super().__init__()
        self.scale = float(quantizer.scale.detach().abs())
        self.zero_point = int(quantizer.zero_point)
        self.low, self.high = quantizer.grid
        self.dtype = torch.int8 if self.low < 0 else torch.uint8

    def forward(self, x: Tensor) -> Tensor:
        """Return x on the grid."""
        how = (self.scale, self.zero_point, self.low, self.high, self.dtype)
        rounded: Tensor = _ops.dequantize_per_tensor(
            _ops.quantize_per_tensor(x.float(), *how), *how
        )
        return rounded.to(x.dtype)

    def extra_repr(self) -> str:
        """Say what it does, for `print(model)`."""
        return f"scale={self.scale:.4g}, zero_point={self.zero_point}, {self.low} to {self.high}"


class IntegerModule(nn.Module):
    """A module with an int8 weight; what it is called with and what it returns is rounded too.

    Attributes:
        module: The module, which has no weight of its own any more.
        weight_integers: Its weight.
    """

    weight_integers: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor

    def __init__(self, wrapper: QuantizerModuleWrapper) -> None:
        super().__init__()
        quantizers = wrapper.quantizers
        self.module = wrapper.plain_module
        self.weight_key, self.axis = wrapper.weight_key, output_axis(wrapper.plain_module)
        self.rounds_weight = "weight" in quantizers
        if self.rounds_weight:
            self._keep_integers(wrapper.dense_weight().detach(), quantizers["weight"])
        self.rounds_input = _rounds(quantizers.get("input"))
        self.rounds_output = _rounds(quantizers.get("output"))
        self.training = False

    @torch.no_grad()
    def _keep_integers(self, weight: Tensor, quantizer: FakeQuantizer) -> None:
        scale = quantizer.scale.detach().abs().float().expand(weight.shape[self.axis])
        shape = [-1 if axis == self.axis else 1 for axis in range(weight.ndim)]
        whole = integers(weight, scale.view(shape), torch.zeros(()), *quantizer.grid)
        self.dtype, self.grid = weight.dtype, quantizer.grid
        self.register_buffer("weight_integers", whole.to(torch.int8))
        self.register_buffer("weight_scale", scale.clone())
        self.register_buffer("weight_zero_point", torch.zeros_like(scale, dtype=torch.int64))
        self.module._parameters[self.weight_key] = None

    @property
    def weight(self) -> Tensor:
        """The weight in floating point."""
        if not self.rounds_weight:
            return self.module.get_parameter(self.weight_key)
        low, high = -128, 127  # of the type; the integers themselves may stay within fewer bits
        dense: Tensor = _ops.dequantize_per_channel(
            self.weight_integers,
            self.weight_scale,
            self.weight_zero_point,
            self.axis,
            low,
            high,
            torch.int8,
        )
        return dense.to(self.dtype)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module with its weight from integers."""
        seen = {self.weight_key: self.weight} if self.rounds_weight else {}
        return run_quantised(self.module, seen, args, kwargs, self.rounds_input, self.rounds_output)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if "module" not in modules or name.startswith("__"):
                raise
            return getattr(modules["module"], name)


def _rounds(quantizer: FakeQuantizer | None) -> _Rounds | None:
    return None if quantizer is None else _Rounds(quantizer)


def integer_model(model: nn.Module, example_inputs: Any, tolerance: float) -> nn.Module:
    """Return a copy of a model that rounds, with integers in the place of what is rounded."""
    with bare(model) as inside:
        made = copy.deepcopy(inside).eval()
    wrappers = [m for m in made.modules() if isinstance(m, QuantizerModuleWrapper)]
    for wrapper in wrappers:
        for kind, quantizer in wrapper.quantizers.items():
            if quantizer.bits > 8:
                raise PruneError(
                    f"The {kind} of {wrapper.name!r} has {quantizer.bits} bits, and integer "
                    "kernels take 8 or fewer. Say 'quant_bits': 8, or use export_model()."
                )
    replace_modules(made, {wrapper: IntegerModule(wrapper) for wrapper in wrappers})
    unwrap(made)
    if example_inputs is not None:
        apart = distance(model, made, example_inputs)
        if not apart <= tolerance:
            raise PruneError(
                f"The model with integers is {apart:.2g} away from the one that rounds, which is "
                f"more than tolerance={tolerance}."
            )
    return made


def distance(first: nn.Module, second: nn.Module, inputs: Any) -> float:
    """Return how far the outputs of two models are apart, as a share of their size.

    It is the root of the mean squared difference over that of the outputs of the first.

    Args:
        first: A model.
        second: Another one.
        inputs: What both are run on.
    """
    found, other = (run(model, inputs) for model in (first, second))
    size = sum(float(x.double().square().sum()) for x in found)
    off = sum(float((x - y).double().square().sum()) for x, y in zip(found, other, strict=True))
    return sqrt(off / size) if size else sqrt(off)
