"""What all quantizers share: targets, wrappers, the training loop, and ways out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import nn

from prune_core.compat import NoEffect, Older, order, understands
from prune_core.compressed import model_of
from prune_core.config import QUANTISING, Key, Purpose, load_config, parse
from prune_core.errors import ConfigError, PruneError, shown
from prune_core.evaluators import looks_like_optimizer
from prune_core.masking import bare, check_model, output_axis, replace_modules
from prune_core.options import ChecksOptions
from prune_quant.files import calibration_of, export_model
from prune_quant.integer import integer_model
from prune_quant.rounding.fake import FakeQuantizer, MovingRange, OwnRange
from prune_quant.targets import QUANTISED_TYPES, Target, find_targets
from prune_quant.wrapper import QuantizerModuleWrapper

__all__ = ["ANY_QUANTIZER", "Quantizer"]

ConfigList = Sequence[Mapping[str, Any]] | str | PathLike[str]

ANY_QUANTIZER = Older(
    orders=[order("optimizer", "dummy_input")],
    ignored={
        "dummy_input": NoEffect(
            default=None,
            instead="Fold batch norms into their convolutions first, with "
            "torch.nn.utils.fusion.fuse_conv_bn_eval, if they are to be quantised together.",
        )
    },
)
"""How releases of NNI called every quantizer."""


class Quantizer(metaclass=ChecksOptions):
    """Selects modules of a model, wraps them, and makes them compute with rounded numbers.

    A subclass says what rounds weights, inputs and outputs, in `make()`.

    Args:
        model: The model, wrapped in place. Its parameters stay the objects that they are. It may be
            masked by a pruner: what is pruned stays pruned, also in training.
        config_list: What to quantise, or the path of a YAML file that says it.
        optimizer: The optimizer of the training loop, for quantizers that train.

    Attributes:
        quant_types: What it can quantise.
        bits: The least and the greatest number of bits.
        default_bits: The bits of an entry that does not say.
        default_types: The classes that `"default"` in a `config_list` stands for.
        config_keys: Further keys of a `config_list` that it understands.
        integers: Whether `convert()` can put integers in the place of what it rounds.
    """

    purpose: ClassVar[Purpose] = QUANTISING
    quant_types: ClassVar[tuple[str, ...]] = ("weight", "input", "output")
    bits: ClassVar[tuple[int, int]] = (2, 16)
    default_bits: ClassVar[int] = 8
    default_types: ClassVar[tuple[str, ...]] = QUANTISED_TYPES
    config_keys: ClassVar[tuple[str | Key, ...]] = ()
    integers: ClassVar[bool] = True

    @understands(ANY_QUANTIZER)
    def __init__(self, model: nn.Module, config_list: ConfigList, optimizer: Any = None) -> None:
        if optimizer is not None and not looks_like_optimizer(optimizer):
            raise ConfigError(
                f"optimizer is {shown(optimizer)}; it must be an optimizer of torch, such as "
                "torch.optim.SGD(model.parameters(), lr=0.01), or None."
            )
        self.optimizer = optimizer
        self.steps = 0
        self.compressed = False
        self._wrappers: dict[str, QuantizerModuleWrapper] = {}
        self.bound_model: nn.Module = nn.Module()
        self.reset(model, config_list)
        if hasattr(optimizer, "register_step_post_hook"):
            optimizer.register_step_post_hook(lambda *heard: self.step())

    def reset(self, model: nn.Module, config_list: ConfigList) -> None:
        """Start anew with another model or config; an old model is unwrapped first.

        Args:
            model: The model to quantise.
            config_list: Its rules.
        """
        model = model_of(model)
        check_model(model, compiled=False)
        if isinstance(config_list, str | PathLike):
            config_list = load_config(config_list)
        entries = parse(config_list, self.config_keys, self.purpose)
        with self.plain():
            targets = find_targets(
                model, entries, type(self).__name__, self.default_types, self.default_bits
            )
        for target in targets:
            self._check(target)
        self.unwrap()
        self.bound_model, self.config_list = model, config_list
        self._wrappers = {target.name: self._wrapper(target) for target in targets}
        self.wrap()
        self.steps, self.compressed = 0, False

    def _check(self, target: Target) -> None:
        where = f"config_list[{target.config['entry']}]"
        least, most = self.bits
        for kind, bits in target.bits.items():
            if kind not in self.quant_types:
                its = ", ".join(self.quant_types)
                raise ConfigError(
                    f"{where}: 'quant_types' has {kind!r}, and {type(self).__name__} quantises "
                    f"{its} only. Others, such as QAT_Quantizer, quantise all."
                )
            if not least <= bits <= most:
                can = f"{least} to {most}" if least < most else f"{least} and nothing else"
                raise ConfigError(
                    f"{where}: 'quant_bits' is {bits} for {kind!r}; {type(self).__name__} takes "
                    f"{can}."
                )

    def _wrapper(self, target: Target) -> QuantizerModuleWrapper:
        made = QuantizerModuleWrapper(target.module, target.name, target.config, {})
        for kind, bits in target.bits.items():
            axis = output_axis(made.plain_module) if kind == "weight" else None
            quantizer = self.make(kind, bits, axis)
            made.register_module(f"{kind}_quantizer", quantizer.to(self._device_of(made)))
        return made.train(target.module.training)

    def _device_of(self, wrapper: QuantizerModuleWrapper) -> torch.device:
        """Return where a module computes: where its parameters are, or those of the model."""
        parameters = chain(wrapper.plain_module.parameters(), self.bound_model.parameters())
        return next((p.device for p in parameters), torch.device("cpu"))

    def make(self, kind: str, bits: int, axis: int | None) -> FakeQuantizer:
        """Return what rounds one tensor.

        Args:
            kind: `"weight"`, `"input"` or `"output"`.
            bits: How many bits its integers have.
            axis: The axis of a weight along which its output channels lie, else None.
        """
        return OwnRange(bits, axis) if kind == "weight" else MovingRange(bits)

    # --- life cycle -----------------------------------------------------------------------

    def compress(self) -> nn.Module:
        """Make the model compute with rounded numbers, and return it."""
        self.wrap()
        self.settle()
        for wrapper in self._wrappers.values():
            start = wrapper.config.get("quant_start_step", 0)
            for quantizer in wrapper.quantizers.values():
                quantizer.active = start <= self.steps
        self.compressed = True
        return self.bound_model

    def settle(self) -> None:
        """Learn what has to be known before anything is rounded."""
        self._look_at_weights()

    @torch.no_grad()
    def _look_at_weights(self) -> None:
        """Learn the steps of the weights, which training may have changed since a forward."""
        for wrapper in self._wrappers.values():
            quantizer = wrapper.quantizers.get("weight")
            if quantizer is not None:
                quantizer.look(wrapper.dense_weight())

    @property
    def is_wrapped(self) -> bool:
        """Whether the wrappers are in the model now."""
        own = {id(wrapper) for wrapper in self._wrappers.values()}
        return any(id(module) in own for module in self.bound_model.modules())

    def wrap(self) -> nn.Module:
        """Put the wrappers in, and return the model; nothing happens when they are in already."""
        if not self.is_wrapped:
            replace_modules(self.bound_model, {w.module: w for w in self._wrappers.values()})
            if not self.is_wrapped:
                raise PruneError(
                    "The modules of the model were replaced since the quantizer was made, for "
                    "example by putting masks on or taking them off: call "
                    "reset(model, config_list)."
                )
        return self.bound_model

    def unwrap(self) -> nn.Module:
        """Take the wrappers out, and return the model with the weights that it has been training.

        Masks of a pruner stay in.
        """
        if self.is_wrapped:
            replace_modules(self.bound_model, {w: w.module for w in self._wrappers.values()})
        return self.bound_model

    @contextmanager
    def plain(self) -> Iterator[nn.Module]:
        """Take the wrappers out for a moment."""
        wrapped = self.is_wrapped
        self.unwrap()
        try:
            with bare(self.bound_model) as model:
                yield model
        finally:
            if wrapped:
                self.wrap()

    def get_modules_wrapper(self) -> OrderedDict[str, QuantizerModuleWrapper]:
        """Return `{module name: wrapper}` in the model's order."""
        return OrderedDict(self._wrappers)

    # --- ways out -------------------------------------------------------------------------

    def convert(self, example_inputs: Any = None, *, tolerance: float = 0.001) -> nn.Module:
        """Return a copy of the model that keeps its weights as integers of 8 bits.

        Files of it are about a quarter as large. `torch.compile` and ONNX Runtime find kernels for
        integers in it; without them it computes the same in floating point.

        Args:
            example_inputs: Real inputs of the model, to prove the copy with: a tensor, a tuple of
                positional or a dict of keyword arguments.
            tolerance: How far the copy's outputs may be from those of the model, as a share of
                their size: the root of the mean squared difference over that of the outputs.

        Raises:
            PruneError: When nothing is rounded yet, when integers cannot stand for what is, or when
                the copy computes something else.
        """
        self._check_ready("convert()")
        if not self.integers:
            raise PruneError(
                f"{type(self).__name__} rounds to grids that have no zero, and integer kernels "
                "need one. export_model() writes the weights that it computes with."
            )
        return integer_model(self.bound_model, example_inputs, tolerance)

    def _check_ready(self, call: str) -> None:
        if not self.compressed:
            raise PruneError(f"Nothing is quantised yet: call compress() before {call}.")
        self._look_at_weights()
        for name, wrapper in self._wrappers.items():
            for kind, quantizer in wrapper.quantizers.items():
                if not quantizer.active:
                    start = wrapper.config["quant_start_step"]
                    raise PruneError(
                        f"{name!r} is not quantised before step {start}, 'quant_start_step', and "
                        f"the optimizer has made {self.steps}. Train on, or begin earlier."
                    )
                if not quantizer.seen:
                    raise PruneError(
                        f"The {kind} of {name!r} has no range yet: no batch has come through in "
                        f"training. Train for some steps before {call}."
                    )

    @property
    def calibration_config(self) -> dict[str, dict[str, Any]]:
        """Bits, steps and ranges of every module, as `export_model` writes them."""
        self._look_at_weights()
        return {name: calibration_of(wrapper) for name, wrapper in self._wrappers.items()}

    def export_model(
        self,
        model_path: str | PathLike[str],
        calibration_path: str | PathLike[str] | None = None,
        onnx_path: str | PathLike[str] | None = None,
        input_shape: Sequence[int] | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Write the quantised model, and whatever else is asked, and return the calibration.

        Args:
            model_path: Gets the state dict under the names that it had before wrapping, with the
                rounded values as weights; safetensors if the name ends so.
            calibration_path: Gets bits, steps and ranges of every module, for `torch.load`.
            onnx_path: Gets the model as ONNX with integer weights; needs `input_shape`.
            input_shape: Shape of the input for ONNX, the batch included.
            device: Where the ONNX export runs; the model's own unless given.
        """
        self._check_ready("export_model()")
        export_model(self, model_path, calibration_path, onnx_path, input_shape, device)
        return self.calibration_config

    # --- called from training loops, and the names of older releases -----------------------

    def step(self) -> None:
        """Hear that an optimizer step was made; with `optimizer=`, it is heard by itself."""
        self.steps += 1
        if self.compressed:
            for wrapper in self._wrappers.values():
                if wrapper.config.get("quant_start_step") == self.steps:
                    for quantizer in wrapper.quantizers.values():
                        quantizer.active = True

    def update_epoch(self, epoch: int) -> None:
        """Hear that an epoch begins.

        Args:
            epoch: The number of the epoch.
        """

    def _wrap_model(self) -> None:
        """`wrap()`."""
        self.wrap()

    def _unwrap_model(self) -> None:
        """`unwrap()`."""
        self.unwrap()
