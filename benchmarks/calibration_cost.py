"""What looking at data costs: Wanda over plain forward passes, SparseGPT over its matrix work.

Run it with `OMP_NUM_THREADS=1 python benchmarks/calibration_cost.py`; it needs prune-oneshot. Times
are those of the processor, taken in turns, and the medians are compared. Memory is counted: the
tensors that are alive at once, beyond those that are alive at the end (the weights, their masks
and, for `unwrap(apply=False)`, the dense weights), over what one block is bound to need.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from models import Decoder
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prune_oneshot import SparseGPTPruner, WandaPruner
from prune_oneshot.solvers import hessian_of, inverse_factor
from prune_oneshot.sparsegpt import SparseGPTSolver
from prune_toolkit import LayerProblem, Statistics

BLOCK = 128


def ratio(one: Callable[[], object], other: Callable[[], object], rounds: int) -> float:
    """Return the processor time of one over that of the other."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for spent, work in zip(times, (one, other), strict=True):
            began = time.process_time()
            work()
            spent.append(time.process_time() - began)
    return statistics.median(times[0][1:]) / statistics.median(times[1][1:])


def wanda(rounds: int = 5) -> float:
    torch.manual_seed(0)
    model = Decoder(depth=2)
    batches = [torch.randint(1000, (4, 128)) for _ in range(4)]

    def calibrate(model: nn.Module) -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}]
    pruner = WandaPruner(model, rules, calibrate=calibrate)
    assert pruner.data_collector is not None
    with pruner.plain() as plain:
        return ratio(pruner.data_collector.collect, lambda: calibrate(plain), rounds)


def sparsegpt(outputs: int, features: int, rounds: int = 5) -> float:
    torch.manual_seed(0)
    rows = torch.randn(2 * features, features, dtype=torch.float64)
    layer = nn.Linear(features, outputs)
    sums, squares = rows.sum(0, keepdim=True), rows.square().sum(0, keepdim=True)
    seen = Statistics(len(rows), sums, squares, (rows.T @ rows).unsqueeze(0))
    weight = layer.weight.detach().unsqueeze(0)
    problem = LayerProblem("layer", layer, weight, None, 0.5, seen)
    solver = SparseGPTSolver(BLOCK)

    def solve() -> object:
        return solver.solve(dataclasses.replace(problem, statistics=seen.copy()))

    def matrices() -> Tensor:
        factor = inverse_factor(hessian_of("layer", seen.copy().take_gram(), 0.01)).float()
        columns = weight.transpose(1, 2).contiguous()
        for start in range(0, features, BLOCK):
            end = min(start + BLOCK, features)
            share = factor[:, start:end, end:].transpose(1, 2)
            columns[:, end:].baddbmm_(share, columns[:, start:end], alpha=-1)
        return columns

    return ratio(solve, matrices, rounds)


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, of those that were made while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._storages:
                    self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    self.now += storage.nbytes()
        for key in [key for key, (held, _) in self._storages.items() if held.expired()]:
            self.now -= self._storages.pop(key)[1]
        self.peak = max(self.peak, self.now)
        return made


def memory(depth: int = 4, width: int = 512) -> float:
    """Return what SparseGPT needs in between, over Gram matrices and activations of one block."""
    torch.manual_seed(0)
    model = Decoder(depth, width).eval()
    batches = [torch.randint(1000, (4, 128)) for _ in range(4)]

    @torch.no_grad()
    def calibrate(model: nn.Module) -> None:
        for batch in batches:
            model(batch)

    layers = [module for module in model.layers[0].modules() if isinstance(module, nn.Linear)]
    grams = sum(8 * layer.in_features**2 for layer in layers)
    with torch.no_grad(), Alive() as one_block:
        model.layers[0](torch.randn(4, 128, width))
    between_blocks = len(batches) * 4 * 128 * width * 4
    rules = [{"sparsity": 0.5, "op_types": ["Linear"]}, {"op_names": ["head"], "exclude": True}]
    pruner = SparseGPTPruner(model, rules, calibrate=calibrate)
    with Alive() as alive:
        pruner.compress()
    return (alive.peak - alive.now) / (grams + one_block.peak + between_blocks)


if __name__ == "__main__":
    print(f"wanda, inputs of all linear layers, over forward passes: {wanda():.2f}")
    for outputs, features in ((1024, 1024), (2048, 2048), (4096, 1024)):
        print(
            f"sparsegpt, {outputs} x {features}, over its matrices: "
            f"{sparsegpt(outputs, features):.2f}"
        )
    print(f"sparsegpt, memory beyond what stays, over that of one block: {memory():.2f}")
