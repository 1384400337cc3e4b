"""How much of a search's time is its own: everything but the user's `evaluate`.

Run it with `python benchmarks/search_overhead.py`; it needs prune-filter, and Optuna for the runs
that are kept. `evaluate` sleeps, so that a busy machine does not slow it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable

from torch import nn

from prune_core.testing import LeNet, make_toy
from prune_schedule import SimulatedAnnealingPruner

SECONDS = 0.2
RULES = [{"sparsity": 0.5, "op_types": ["Conv2d", "Linear"]}]


def own_share(trials: int, algorithm: str, **kept: str) -> tuple[float, float]:
    """Return the share of the wall time that is not spent in `evaluate`, and seconds of CPU."""
    spent = 0.0

    def evaluate(model: nn.Module) -> float:
        nonlocal spent
        began = time.perf_counter()
        time.sleep(SECONDS)
        spent += time.perf_counter() - began
        return len(pruner.trials) / trials

    pruner = SimulatedAnnealingPruner(
        make_toy(LeNet),
        RULES,
        evaluate,
        pruning_algorithm=algorithm,
        # so that two and this many coolings make as many trials as are wanted
        cool_down_rate=0.2 ** (1 / (trials - 2)),
        **kept,
    )
    began, cpu = time.perf_counter(), time.process_time()
    result = pruner.run()
    total = time.perf_counter() - began
    assert len(result.trials) == trials
    return (total - spent) / total, (time.process_time() - cpu) / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    trials = parser.parse_args().trials
    own_share(3, "level")  # imports
    print(f"{trials} trials, an evaluation of {SECONDS} s each; LeNet, 61,470 weights")
    places: dict[str, Callable[[str], dict[str, str]]] = {
        "in memory": lambda folder: {},
        "in a folder": lambda folder: {"experiment_data_dir": folder},
        "in SQLite": lambda folder: {"storage": f"sqlite:///{folder}/study.db"},
    }
    for algorithm in ("level", "l1"):
        for name, kept in places.items():
            with tempfile.TemporaryDirectory() as folder:
                share, cpu = own_share(trials, algorithm, **kept(folder))
            print(
                f"  {algorithm:<6} {name:<12} {share:6.2%} of the time is the search's own, "
                f"{cpu * 1e3:.1f} ms of CPU per trial"
            )


if __name__ == "__main__":
    main()
