"""Draw what `lottery_mnist.py` has written: `python examples/lottery_plots.py lottery-results`."""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ARMS = {
    "ticket": ("ticket: its mask, its initial weights", "tab:blue", "o"),
    "reinit": ("its mask, new random weights", "tab:orange", "s"),
    "random_mask": ("random mask, its initial weights", "tab:green", "^"),
}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def deviation(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def by_iteration(rows: list[dict[str, str]], path: Path) -> None:
    """One curve for each round, the mean over all seeds."""
    curves: dict[tuple[int, float], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["arm"] == "ticket":
            key = int(row["round"]), float(row["sparsity"])
            curves[key][int(row["iteration"])].append(100 * float(row["test_accuracy"]))
    figure, axes = plt.subplots(figsize=(7, 4.5))
    colours = plt.get_cmap("viridis")
    for place, ((number, sparsity), curve) in enumerate(sorted(curves.items())):
        steps = sorted(curve)
        axes.plot(
            steps,
            [mean(curve[step]) for step in steps],
            label=f"round {number}, sparsity {sparsity:.0%}",
            color=colours(place / max(1, len(curves) - 1)),
            linewidth=1.2,
        )
    best = max(mean(values) for curve in curves.values() for values in curve.values())
    axes.set(xlabel="iteration", ylabel="test accuracy (%)", ylim=(best - 6, best + 0.4))
    axes.legend(fontsize=7, ncols=2)
    save(figure, path)


def by_sparsity(rows: list[dict[str, str]], path: Path) -> None:
    """Accuracy at the end, and when the validation loss is lowest, with standard deviations."""
    accuracy: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    stop: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        left = 100 * (1 - float(row["sparsity"]))
        accuracy[row["arm"]][left].append(100 * float(row["end_accuracy"]))
        stop[row["arm"]][left].append(float(row["stop_iteration"]))
    figure, both = plt.subplots(1, 2, figsize=(10, 4))
    for axes, table in zip(both, (accuracy, stop), strict=True):
        for arm, (label, colour, marker) in ARMS.items():
            left = sorted(table[arm], reverse=True)
            axes.errorbar(
                left,
                [mean(table[arm][x]) for x in left],
                [deviation(table[arm][x]) for x in left],
                label=label,
                color=colour,
                marker=marker,
                markersize=4,
                capsize=3,
                linewidth=1.2,
            )
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xticks(sorted(table["ticket"])[::2], minor=False)
        axes.set_xticklabels([f"{x:.3g}" for x in sorted(table["ticket"])[::2]])
        axes.minorticks_off()
        axes.set_xlabel("weights left (%)")
    both[0].set_ylabel("test accuracy at the end (%)")
    both[1].set_ylabel("iteration of lowest validation loss")
    both[0].legend(fontsize=7)
    save(figure, path)


def save(figure: "plt.Figure", path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw(folder: Path) -> None:
    plt.rcParams["svg.hashsalt"] = "lottery"  # the same picture for the same numbers
    by_iteration(read(folder / "curves.csv"), folder / "accuracy_by_iteration.svg")
    by_sparsity(read(folder / "summary.csv"), folder / "accuracy_by_sparsity.svg")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
