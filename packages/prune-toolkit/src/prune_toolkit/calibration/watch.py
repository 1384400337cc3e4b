"""Watching what goes into layers while somebody else's code runs the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prune_core.errors import ConfigError, PruneError
from prune_core.masking import weight_name
from prune_core.masking.watcher import Watcher
from prune_toolkit.calibration.layers import first_input, is_layer, row_mask, sums_of
from prune_toolkit.calibration.precision import counting_type
from prune_toolkit.calibration.products import add_products
from prune_toolkit.calibration.statistics import Statistics
from prune_toolkit.running.processes import is_distributed, over_processes

__all__ = ["InputWatch", "TokenMask", "padding_of"]

TokenMask = Callable[[tuple[Any, ...], dict[str, Any]], Tensor | None]
"""Takes what the model is called with; returns which tokens are no padding, or None."""


def padding_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the `attention_mask` of a call, if it is one number for each token of each sample."""
    mask = kwargs.get("attention_mask")
    return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None


class _Contribution(NamedTuple):
    """What one tensor gave, kept for the next layer that reads the same one."""

    name: str
    inputs: Tensor
    version: int
    form: tuple[Any, ...]
    statistics: Statistics


class InputWatch:
    """Gathers statistics of the inputs of some layers, from each of their calls while it is open.

    Queries, keys and values of an attention read one tensor: what one layer has computed of an
    input is used for the next that reads the same.

    Args:
        modules: The layers, by name: modules themselves, not their wrappers.
        products: Whether to gather the products of features as well, the Gram matrix.
        tokens: Which tokens are no padding, `(samples, tokens)`; may be set between two calls.

    Attributes:
        paused: Whether what passes at the moment does not count.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        products: bool | Collection[str] = False,
        tokens: Tensor | None = None,
    ) -> None:
        for name, module in modules.items():
            if not is_layer(module):
                raise ConfigError(
                    f"{name!r} is a {type(module).__name__}, whose inputs are not understood as "
                    "features of its weight. Exclude it."
                )
        self.modules = dict(modules)
        every = modules if products is True else ()
        self.products = frozenset(every if isinstance(products, bool) else products)
        self.tokens, self.paused = tokens, False
        self._statistics: dict[str, Statistics] = {}
        self._twins: dict[str, str | None] = {}
        self._refused: dict[str, str] = {}
        self._last: _Contribution | None = None
        self._handles: list[RemovableHandle] = []

    def begin(self, tokens: Tensor | None) -> None:
        """Hear that a batch begins, and which of its tokens are no padding.

        Args:
            tokens: Which tokens are no padding, or None if that is not known.
        """
        self.tokens = tokens

    def __enter__(self) -> Self:
        for name, module in self.modules.items():

            def look(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name
            ) -> None:
                if not self.paused:
                    self._add(name, module, args, kwargs)

            watcher = Watcher(look, module)
            self._handles.append(module.register_forward_pre_hook(watcher, with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._last = [], None

    def _add(
        self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        inputs = first_input(module, args, kwargs)
        if inputs is None:
            self._refused[name] = "it is called with different queries, keys and values"
            return
        # Neither the user's autocast nor inference mode is meant for what is gathered here.
        with (
            torch.no_grad(),
            torch.inference_mode(False),
            torch.autocast(inputs.device.type, enabled=False),
        ):
            found, twin = self._of(name, module, inputs)
        have = self._statistics.get(name)
        if have is None:
            self._statistics[name] = found if twin is None else found.copy()
            self._twins[name] = twin
        else:
            have.add(found)
            if self._twins[name] != twin:
                self._twins[name] = None

    def _of(self, name: str, module: nn.Module, inputs: Tensor) -> tuple[Statistics, str | None]:
        """Return the statistics of one input, and which layer has read the same one just before."""
        form = (_form(module), name in self.products)
        version = 0 if inputs.is_inference() else inputs._version
        last = self._last
        if (
            last is not None
            and last.inputs is inputs
            and (last.version, last.form) == (version, form)
            and last.statistics is not self._statistics.get(name)
        ):
            return last.statistics, last.name
        self._last = None  # frees what the last one holds, before more is made
        made = self._made(name, module, inputs)
        self._last = _Contribution(name, inputs, version, form, made)
        return made, None

    def _made(self, name: str, module: nn.Module, inputs: Tensor) -> Statistics:
        dtype = counting_type(inputs.device)
        mask = row_mask(module, inputs, self.tokens)
        rows, sums, squares = sums_of(module, inputs.detach(), dtype, mask)
        products = None
        if name in self.products:
            if isinstance(module, nn.Embedding):
                raise ConfigError(
                    f"{name!r} is an embedding: each of its rows has a single feature, so there is "
                    "nothing that could make up for another. Exclude it."
                )
            size = sums.shape[-1]
            _check_room(name, len(sums), size, sums)
            products = sums.new_zeros(len(sums), size, size)
            add_products(products, module, inputs.detach(), mask)
        return Statistics(rows, sums, squares, products)

    @property
    def reached(self) -> list[str]:
        """The layers of which anything has been seen."""
        return [name for name, statistics in self._statistics.items() if statistics.rows]

    def forget(self) -> None:
        """Forget what has been gathered, and go on."""
        self._statistics, self._twins, self._refused, self._last = {}, {}, {}, None

    def gathered(self, required: Collection[str] | None = None) -> dict[str, Statistics]:
        """Return the statistics of all calls so far, those of other processes included.

        Layers that always read the same tensor get the same object.

        Args:
            required: The layers that must have been reached; all unless given.

        Raises:
            PruneError: A layer was not reached, or its inputs hold NaN or infinity.
        """
        found = self._over_processes()
        found = {n: s for n, s in found.items() if s.rows and n not in self._refused}
        for name in self.modules if required is None else required:
            if name not in found:
                why = self._refused.get(name, "the data never reach it, or it is not called")
                raise PruneError(
                    f"Nothing was gathered of the inputs of {name!r}: {why}. Give data that reach "
                    f"it, or exclude it: {{'op_names': [{name!r}], 'exclude': True}}."
                )
        for name, statistics in found.items():
            if not statistics.finite():
                raise PruneError(
                    f"What goes into {name!r} holds NaN or infinity during the calibration, so "
                    "nothing can be told from it. Look at the data, or run the model in float32: "
                    "half precision overflows."
                )
        for name, twin in self._twins.items():
            if twin is None or name not in found or twin not in found:
                continue
            if found[twin].rows == found[name].rows:
                found[name] = found[twin]
        return found

    def _over_processes(self) -> dict[str, Statistics]:
        if not is_distributed():
            return dict(self._statistics)
        return self._of_sums(over_processes(self.sums(), self.places()))

    # --- what is kept, and added up over processes ------------------------------------------

    def places(self) -> dict[str, torch.device]:
        """Return the name of every tensor that may be in `sums()`, and the device that it is on."""
        devices = {
            name: module.get_parameter(weight_name(module) or "weight").device
            for name, module in self.modules.items()
        }
        return {f"{name}:{part}": devices[name] for name in devices for part in Statistics.PARTS}

    def sums(self) -> dict[str, Tensor]:
        """Return what has been gathered, as tensors that may be added to those of others."""
        return {
            f"{name}:{part}": tensor
            for name, statistics in self._statistics.items()
            for part, tensor in statistics.parts().items()
        }

    def load_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Go on with what `sums()` returned.

        Args:
            sums: What `sums()` returned.
        """
        places = self.places()
        self.forget()
        self._statistics = self._of_sums({n: sum_.to(places[n]) for n, sum_ in sums.items()})
        self._twins = dict.fromkeys(self._statistics)

    def _of_sums(self, sums: Mapping[str, Tensor]) -> dict[str, Statistics]:
        return {
            name: Statistics.of_parts(
                {part: sums.get(f"{name}:{part}") for part in Statistics.PARTS}
            )
            for name in self.modules
            if f"{name}:sums" in sums
        }


def _check_room(name: str, groups: int, size: int, like: Tensor) -> None:
    """Refuse products that cannot be in memory, before the operating system ends the process."""
    needed, there = groups * size**2 * like.element_size(), physical_memory()
    if like.device.type == "cpu" and there is not None and needed > there:
        raise PruneError(
            f"{name!r} has {size} inputs, and their products need {needed / 1e9:.0f} GB; this "
            f"machine has {there / 1e9:.0f} GB. Take what needs no products, such as "
            "activation_norm with reconstruct='bias' or 'batch_norm', or exclude what is pruned "
            "before this layer."
        )


def physical_memory() -> int | None:
    """Return how many bytes the machine has, or None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _form(module: nn.Module) -> tuple[Any, ...]:
    """Return what two layers have in common that see one tensor as the same rows."""
    if isinstance(module, nn.Embedding):
        return ("words", module.num_embeddings)
    window = ("groups", "kernel_size", "stride", "padding", "dilation", "padding_mode")
    return tuple(getattr(module, name, None) for name in window)
