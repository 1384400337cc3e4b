"""How much of a search's time is its own: everything but the user's `evaluate`.

Run it with `python benchmarks/search_overhead.py`; it needs prune-filter, and Optuna for the runs
that are kept. `evaluate` sleeps, so that a busy machine does not slow it. The share of the whole
is what counts; the milliseconds of each trial say where it goes: into masks, into writing the
trial down, and into the rest. What Optuna and its database take to be imported is told apart.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn

from prune_core.testing import LeNet, make_toy
from prune_schedule import SimulatedAnnealingPruner
from prune_schedule.store.history import Study

SECONDS = 0.2
RULES = [{"sparsity": 0.5, "op_types": ["Conv2d", "Linear"]}]
spent: defaultdict[str, float] = defaultdict(float)


def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that also notes how long it takes."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.perf_counter() - began

    return run


class Timed(SimulatedAnnealingPruner):
    _put = timed("masks", SimulatedAnnealingPruner._put)


def measure(trials: int, algorithm: str, **kept: str) -> dict[str, float]:
    """Search, and return the share of the time that is its own, and what that consists of."""
    spent.clear()

    def evaluate(model: nn.Module) -> float:
        time.sleep(SECONDS)
        return len(pruner.trials) / trials

    pruner = Timed(
        make_toy(LeNet),
        RULES,
        timed("evaluate", evaluate),
        pruning_algorithm=algorithm,
        # so that two and this many coolings make as many trials as are wanted
        cool_down_rate=0.2 ** (1 / (trials - 2)),
        **kept,
    )
    cpu = time.process_time()
    result = timed("all", pruner.run)()
    cpu = time.process_time() - cpu
    assert len(result.trials) == trials
    own = spent["all"] - spent["evaluate"]
    rest = own - spent["masks"] - spent["writing"]
    return {
        "share": own / spent["all"],
        "masks": spent["masks"] / trials,
        "writing": spent["writing"] / trials,
        "rest": rest / trials,
        "CPU": cpu / trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--postgresql", metavar="URL", help="measure a study there as well")
    options = parser.parse_args()
    # torch's other threads sleep when `evaluate` does, and take a millisecond to wake. One that
    # computes keeps them awake, so what they cost is not the search's.
    torch.set_num_threads(1)
    Study.add = timed("writing", Study.add)  # type: ignore[method-assign]
    began = time.perf_counter()
    import prune_schedule.store.database
    import prune_schedule.store.journal  # noqa: F401

    imports = time.perf_counter() - began
    measure(3, "level", storage="sqlite://")  # whatever else is done once
    places: dict[str, Callable[[str], dict[str, str]]] = {
        "in memory": lambda folder: {},
        "in a folder": lambda folder: {"experiment_data_dir": folder},
        "in SQLite": lambda folder: {"storage": f"sqlite:///{folder}/study.db"},
    }
    if options.postgresql:
        places["PostgreSQL"] = lambda folder: {
            "storage": options.postgresql,
            "study_name": folder,
        }
    print(f"{options.trials} trials, an evaluation of {SECONDS} s each; LeNet, 61,470 weights")
    print(f"importing Optuna and SQLAlchemy took {imports:.2f} s, once")
    print(f"{'':<20} own share   ms per trial: masks  writing   rest    CPU")
    for algorithm in ("level", "l1"):
        for name, kept in places.items():
            with tempfile.TemporaryDirectory() as folder:
                found = measure(options.trials, algorithm, **kept(folder))
            parts = (found[part] * 1e3 for part in ("masks", "writing", "rest", "CPU"))
            print(
                f"{algorithm:<7} {name:<12} {found['share']:9.2%}                "
                + "  ".join(f"{part:5.2f}" for part in parts)
            )


if __name__ == "__main__":
    main()
