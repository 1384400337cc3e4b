"""What looking at data costs: Wanda over plain forward passes, SparseGPT over its matrix work.

Run it with `OMP_NUM_THREADS=1 python benchmarks/calibration_cost.py`; it needs prune-oneshot. Times
are those of the processor, taken in turns, and the medians are compared.
"""

import statistics
import time
from collections.abc import Callable

import torch
from models import Decoder
from torch import Tensor, nn

from prune_oneshot import WandaPruner
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


def sparsegpt(outputs: int, features: int, rounds: int = 3) -> float:
    torch.manual_seed(0)
    rows = torch.randn(2 * features, features, dtype=torch.float64)
    layer = nn.Linear(features, outputs)
    sums, squares = rows.sum(0, keepdim=True), rows.square().sum(0, keepdim=True)
    seen = Statistics(len(rows), sums, squares, (rows.T @ rows).unsqueeze(0))
    weight = layer.weight.detach().unsqueeze(0)
    problem = LayerProblem("layer", layer, weight, None, 0.5, seen)
    solver = SparseGPTSolver(BLOCK)

    def matrices() -> Tensor:
        factor = inverse_factor(hessian_of("layer", seen.gram, 0.01)).float()
        columns = weight.transpose(1, 2).contiguous()
        for start in range(0, features, BLOCK):
            end = min(start + BLOCK, features)
            share = factor[:, start:end, end:].transpose(1, 2)
            columns[:, end:].baddbmm_(share, columns[:, start:end], alpha=-1)
        return columns

    return ratio(lambda: solver.solve(problem), matrices, rounds)


if __name__ == "__main__":
    print(f"wanda, inputs of all linear layers, over forward passes: {wanda():.2f}")
    for outputs, features in ((1024, 1024), (2048, 2048), (4096, 1024)):
        print(
            f"sparsegpt, {outputs} x {features}, over its matrices: "
            f"{sparsegpt(outputs, features):.2f}"
        )
