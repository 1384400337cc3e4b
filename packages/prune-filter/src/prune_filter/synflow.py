"""Single weights by how much flows through them, without any data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from prune_core import Compressed, ConfigError, PruneError
from prune_core.masking import Masks
from prune_core.progress import track
from prune_toolkit import DataCollector, MetricsCalculator, StraightMetricsCalculator
from prune_toolkit.basic import Options
from prune_toolkit.oneshot import ConfigList, OneShotPruner
from prune_toolkit.running.restore import left_as_it_was

__all__ = ["SynFlowPruner", "SynapticFlowCollector"]


class SynapticFlowCollector(DataCollector):
    """Gathers `|w| · ∂R/∂|w|`, where R is what a model of absolute values makes of ones.

    Everything is computed in float64 on copies: products of as many factors as a model is deep
    leave the range of float32.

    Args:
        compressor: The pruner.
        dummy_input: What the model is called with; its floating-point tensors only give shapes.
    """

    def __init__(self, compressor: Any, dummy_input: Any) -> None:
        super().__init__(compressor)
        self.dummy_input = dummy_input

    def collect(self) -> dict[str, Tensor]:
        """Return the flow through each weight that is not masked."""
        model = self.compressor.bound_model
        state = {name: _absolute(name, tensor) for name, tensor in _state(model)}
        wrappers = self.compressor.get_modules_wrapper()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        weights = [state[names[id(w.parameter(w.target))]] for w in wrappers.values()]
        with left_as_it_was(model), torch.enable_grad():
            model.eval()
            outputs = functional_call(model, state, *_ones(self.dummy_input))
            total = sum(
                (t.sum() for t in pytree.tree_leaves(outputs) if _is_real(t)),
                start=torch.zeros((), dtype=torch.float64),
            )
            flows = torch.autograd.grad(total, weights, allow_unused=True)
        data = {}
        for name, weight, flow in zip(wrappers, weights, flows, strict=True):
            if flow is None:
                raise PruneError(f"Nothing flows through {name!r} when the model gets dummy_input.")
            data[name] = weight.detach() * flow
        if not any(bool(values.any()) for values in data.values()):
            raise PruneError(
                "Nothing flows from the input to the output of this model, so all weights score "
                "the same. SynFlow needs a path of products: a layer norm, for instance, makes "
                "zeros of an input of ones."
            )
        return data


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _absolute(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    absolute = tensor.detach().double().abs()
    if name.endswith("running_mean"):
        # Taking it away would make paths negative that are positive.
        absolute.zero_()
    return nn.Parameter(absolute) if isinstance(tensor, nn.Parameter) else absolute


def _ones(dummy_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments of the form of dummy_input: a tensor, a tuple or list, or a mapping."""

    def one(value: Any) -> Any:
        return torch.ones_like(value, dtype=torch.float64) if _is_real(value) else value

    if isinstance(dummy_input, Mapping):
        return (), {name: pytree.tree_map(one, value) for name, value in dummy_input.items()}
    if isinstance(dummy_input, tuple | list):
        return tuple(pytree.tree_map(one, value) for value in dummy_input), {}
    return (one(dummy_input),), {}


class SynFlowPruner(OneShotPruner):
    """Prunes the single weights through which least flows, in many small rounds and without data.

    `score = |w| · ∂R/∂|w|`, where R is the sum of the outputs for an input of ones, with all
    parameters replaced by their absolute values. After round r of n the weights left are
    `(1 − sparsity)^(r/n)`. Batch norm is in eval mode, with a running mean of zero.

    Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic
    flow, https://arxiv.org/abs/2006.05467

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        dummy_input: What the model is called with: a tensor, a tuple of arguments or a mapping of
            keyword arguments. Floating-point tensors only give shapes, others are used as they are.
        rounds: How many rounds.
        mode: `"global"` ranks the weights of all modules of an entry together, `"normal"` those
            of each module.
        **options: `reconstruct=`, `calibrate=` and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_filter import SynFlowPruner
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> rules = [{"total_sparsity": 0.75, "op_types": ["Linear"]}]
        >>> model, masks = SynFlowPruner(model, rules, dummy_input=torch.ones(1, 4)).compress()
        >>> sum(int(mask["weight"].sum()) for mask in masks.values())
        12
    """

    modes: ClassVar[tuple[str, ...]] = ("global", "normal")

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        dummy_input: Any = None,
        rounds: int = 100,
        mode: str = "global",
        **options: Unpack[Options],
    ) -> None:
        if dummy_input is None:
            raise ConfigError(
                "SynFlowPruner runs the model and got no dummy_input; give an input of the right "
                "shape, such as dummy_input=torch.ones(1, 3, 224, 224)."
            )
        if not isinstance(rounds, int) or rounds < 1:
            raise ConfigError(f"rounds is {rounds!r}; it must be a whole number of at least 1.")
        self.rounds = rounds
        super().__init__(model, config_list, mode, dummy_input, **options)

    def collector(self) -> DataCollector:
        """Measure the flow through each weight."""
        return SynapticFlowCollector(self, self.dummy_input)

    def calculator(self) -> MetricsCalculator:
        """Take the flows for the scores."""
        return StraightMetricsCalculator(copy=False)

    def compress(self, example_inputs: Any = None) -> Compressed[nn.Module, Masks]:
        """Make masks in rounds, put them in force, and return the wrapped model and the masks.

        Args:
            example_inputs: An input of the model. With it, the masks also cover what comes after
                a masked channel, such as the bias of a normalisation.
        """
        rounds = range(1, self.rounds)
        for done in track(rounds, type(self).__name__, len(rounds), "round"):
            with self._sparsity_after(done):
                self.load_masks(self._next_masks())
        return super().compress(example_inputs)

    def _next_masks(self) -> Masks:
        assert self.data_collector is not None
        assert self.sparsity_allocator is not None
        return self.sparsity_allocator.generate_sparsity(self.data_collector.collect())

    @contextmanager
    def _sparsity_after(self, done: int) -> Iterator[None]:
        """Let the settings ask for what is to be gone after a round."""
        wrappers = self.get_modules_wrapper().values()
        asked = [wrapper.config["sparsity"] for wrapper in wrappers]
        for wrapper, sparsity in zip(wrappers, asked, strict=True):
            wrapper.config["sparsity"] = 1 - (1 - sparsity) ** (done / self.rounds)
        try:
            yield
        finally:
            for wrapper, sparsity in zip(wrappers, asked, strict=True):
                wrapper.config["sparsity"] = sparsity
