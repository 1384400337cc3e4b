"""How long a fresh process takes to import prune and to find twenty installed plugins.

Run it with `python benchmarks/discovery.py`; it needs pip and hatchling, and no torch.
The yardstick is what reading entry points costs anybody: `importlib.metadata.entry_points()`.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from prune_core.testing import Environment, build_wheels, write_plugin

PLUGINS = 20
ROUNDS = 15
HOOKS = """
from prune_core import Reference, hookimpl

@hookimpl
def prune_register_pruners():
    return {{"pruner_{number}": Reference("benchmark_{number}.algorithm:Pruner", "One of many.")}}
"""
STATEMENTS = {
    "bare interpreter": "",
    "import prune_core": "import prune_core",
    "prune_core.plugins()": "import prune_core; assert len(prune_core.plugins()) == 21",
    "entry_points()": (
        "from importlib.metadata import entry_points; "
        "assert len(entry_points(group='prune_core.plugins')) == 21"
    ),
}


def environment_with_plugins(folder: Path) -> Environment:
    repository = Path(__file__).parents[1]
    projects = [
        write_plugin(folder, f"benchmark-{number}", hooks=HOOKS.format(number=number))
        for number in range(PLUGINS)
    ]
    wheels = build_wheels(*projects, into=folder / "wheels")
    environment = Environment.create(folder / "venv")
    environment.install(repository / "packages" / "prune-core", *wheels)
    return environment


def milliseconds(environment: Environment, statement: str) -> float:
    command = [str(environment.executable), "-I", "-c", statement]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_with_plugins(Path(folder))
        for statement in STATEMENTS.values():
            milliseconds(environment, statement)  # writes the bytecode
        # Interleaved, and the best of many: a busy machine slows single rounds, not all of them.
        rounds = [
            {name: milliseconds(environment, code) for name, code in STATEMENTS.items()}
            for _ in range(ROUNDS)
        ]
    best = {name: min(times[name] for times in rounds) for name in STATEMENTS}
    bare = best.pop("bare interpreter")
    print(f"bare interpreter {bare:.1f} ms; each of these on top of it, best of {ROUNDS}:")
    for name, total in best.items():
        print(f"  {name:<22}{total - bare:6.1f} ms")
    found = best["prune_core.plugins()"] - best["import prune_core"]
    print(f"discovery of {PLUGINS} plugins after the import: {found:.1f} ms")
    ratio = (best["prune_core.plugins()"] - bare) / (best["entry_points()"] - bare)
    print(f"plugins() / entry_points() = {ratio:.2f}")


if __name__ == "__main__":
    main()
