"""What a model takes: its zeros and its bytes, and, where asked for, time and working memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from prune_core.masking.slices import count_alive
from prune_core.traversal import named_tensors
from prune_speedup.torch.record.inputs import call
from prune_speedup.torch.record.isolation import untouched
from prune_speedup.torch.tensors import Snapshot
from prune_toolkit.running.restore import evaluating

__all__ = ["Running", "Taken", "measure", "size_of", "taken_by", "timed_call"]

_REPETITIONS = 9


@dataclass(frozen=True, slots=True)
class Running:
    """What a forward of the example takes in eval mode, before and after.

    Attributes:
        seconds: The median over runs in which both models take turns.
        activations: The most bytes that results of operators held at any moment of one run.
        spread: Seconds between the first and the third quartile of those runs.
        runs: How many runs of each model.
    """

    seconds: tuple[float, float]
    activations: tuple[int, int]
    spread: tuple[float, float] = (0.0, 0.0)
    runs: int = 0

    @property
    def noisy(self) -> bool:
        """Whether the two models differ by less than the runs of one of them do."""
        return abs(self.seconds[0] - self.seconds[1]) < max(self.spread)

    @property
    def slower(self) -> bool:
        """Whether the small model takes longer, by more than the runs of one model differ."""
        return not self.noisy and self.seconds[1] > self.seconds[0]


class Taken(NamedTuple):
    """What a model takes.

    Attributes:
        parameters: The values in its parameters.
        zeros: Those that are zero, or would be once masked.
        bytes: Of its parameters and buffers.
    """

    parameters: int
    zeros: int
    bytes: int


def taken_by(model: nn.Module, masks: Mapping[str, torch.Tensor] | None = None) -> Taken:
    """What a model takes, by one look at each of its tensors."""
    masks = masks or {}
    names: dict[int, tuple[torch.Tensor, list[str]]] = {}
    for name, tensor in named_tensors(model, every_name=True).items():
        names.setdefault(id(tensor), (tensor, []))[1].append(name)
    parameters = alive = held = 0
    for tensor, known in names.values():
        held += tensor.numel() * tensor.element_size()
        if isinstance(tensor, nn.Parameter):
            covering = [masks[name].to(tensor.device) for name in known if name in masks]
            mask = reduce(torch.logical_and, covering) if covering else None
            parameters += tensor.numel()
            alive += count_alive(tensor.detach(), mask)
    return Taken(parameters, parameters - alive, held)


def size_of(model: nn.Module) -> int:
    """The bytes of the parameters and buffers."""
    return sum([tensor.numel() * tensor.element_size() for tensor in named_tensors(model).values()])


def timed_call(model: nn.Module, example_inputs: Any) -> float:
    """The seconds that a model takes, until its device has really done the work."""
    devices = {tensor.device for tensor in model.parameters()} - {torch.device("cpu")}
    _wait_for(devices)
    start = perf_counter()
    call(model, example_inputs)
    _wait_for(devices)
    return perf_counter() - start


def _wait_for(devices: set[torch.device]) -> None:
    for device in devices:
        torch.accelerator.synchronize(device)


def measure(model: nn.Module, example_inputs: Any, original: Snapshot) -> Running:
    """Run a small model and what it was before in turns, on the same inputs.

    Args:
        model: The small model; it is left as it is.
        example_inputs: What both are run with.
        original: The model before.
    """
    small = Snapshot(model)
    seconds: tuple[list[float], list[float]] = ([], [])
    activations = [0, 0]
    with untouched(model), evaluating(model), torch.no_grad():
        try:
            for turn in range(_REPETITIONS):
                for which, state in enumerate((original, small)):
                    state.restore()
                    model.eval()
                    if not turn:
                        activations[which] = _activations(model, example_inputs)
                    # Tensors that were put back are in no cache yet: the first run fetches them.
                    call(model, example_inputs)
                    seconds[which].append(timed_call(model, example_inputs))
        finally:
            small.restore()
    return Running(
        (median(seconds[0]), median(seconds[1])),
        (activations[0], activations[1]),
        (_spread(seconds[0]), _spread(seconds[1])),
        _REPETITIONS,
    )


def _spread(seconds: list[float]) -> float:
    first, _, third = quantiles(seconds, n=4)
    return third - first


def _activations(model: nn.Module, example_inputs: Any) -> int:
    known = chain(model.parameters(), model.buffers())
    results = _Results({tensor.untyped_storage()._cdata for tensor in known})
    with results:
        call(model, example_inputs)
    return results.most


def _weak(storage: torch.UntypedStorage) -> Any:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


class _Results(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes that results of operators hold.

    Not the allocator's peak, which depends on what ran before, and which a processor does not
    tell; what an operator needs while it runs is not seen.
    """

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = known
        self._held: dict[int, tuple[Any, int]] = {}
        self.most = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided:
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._held[storage._cdata] = _weak(storage), storage.nbytes()
        self._held = {key: kept for key, kept in self._held.items() if not kept[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._held.values()))
        return result
