"""Half of the units of every model of the zoo, chosen blindly: `python benchmarks/zoo/run.py`.

Each line says what became of a model: `exact` (the oracle agrees), `kept` (exact, but less than
30 % of the parameters could go), `refused` (an error, model untouched) or `WRONG`.
"""

import argparse
import random
import signal
import sys
from pathlib import Path
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).parent))

from models import SUITES
from oracle import (
    masked_copy,
    norms_over_live_channels,
    widest_difference,
)

from prune_core.graph import units
from prune_core.speedup import shrink


def realistic(model):
    """Statistics and constants such as training leaves them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(getattr(module, "running_var", None), torch.Tensor):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        for parameter in model.parameters():
            if parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def call(model, inputs):
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def doubled(inputs):
    if isinstance(inputs, dict):
        return {name: doubled(item) for name, item in inputs.items()}
    return inputs.double() if inputs.is_floating_point() else inputs


def judge(build, inputs, share=0.5):
    """Shrink one model and let the oracle compare; one row of the table."""
    torch.manual_seed(0)
    model = realistic(build())
    before = sum(p.numel() for p in model.parameters())
    start = perf_counter()
    found = units(model, inputs)
    pick = random.Random(0)
    chosen = [
        found.unit(label)
        for group in found.groups
        for label in pick.sample(group.labels, int(len(group) * share))
    ]
    original = masked_copy(model, [])
    small = model.double()
    report = shrink(small, doubled(inputs), units=chosen)
    seconds = perf_counter() - start
    shapes = {change.name: (change.before, change.after) for change in report.changes}
    gone = [u.slices for u in chosen if went(u.slices, shapes)]
    truth = masked_copy(original, gone)
    with torch.no_grad():
        # torch's fused encoder layer would read the norms' weights past their modules.
        torch.backends.mha.set_fastpath_enabled(False)
        with norms_over_live_channels(truth, gone):
            expected = call(truth, doubled(inputs))
        torch.backends.mha.set_fastpath_enabled(True)
        difference = widest_difference(expected, call(small, doubled(inputs)))
    less = 1 - sum(p.numel() for p in model.parameters()) / max(before, 1)
    verdict = "WRONG" if not difference < 1e-6 else "exact" if less > 0.3 else "kept"
    note = "; ".join([*report.unknown, *report.returned][:2])
    return verdict, less, difference, seconds, note


def went(slices, shapes):
    """Whether a unit was removed: every axis that it cuts has become shorter."""
    return all(
        name in shapes and shapes[name][0][axis] > shapes[name][1][axis]
        for name, axes in slices.items()
        for axis in axes
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES), help=", ".join(SUITES))
    parser.add_argument("--only", default="", help="a part of a model's name")
    parser.add_argument("--limit", type=int, default=120, help="seconds a model may take")
    options = parser.parse_args()

    def stop(*_):
        raise TimeoutError(f"longer than {options.limit} s")

    signal.signal(signal.SIGALRM, stop)
    print(f"{'model':44} {'verdict':8} {'less':>5} {'difference':>10} {'s':>6}  note")
    tally = {}
    for suite in options.suites:
        for name, build, inputs in SUITES[suite]():
            if options.only not in name:
                continue
            signal.alarm(options.limit)
            try:
                verdict, less, difference, seconds, note = judge(build, inputs)
            except Exception as error:  # a row of the table, not the end of it
                verdict, less, difference, seconds = "refused", 0.0, float("nan"), float("nan")
                note = f"{type(error).__name__}: {error}"
            finally:
                signal.alarm(0)
            tally[verdict] = tally.get(verdict, 0) + 1
            line = (
                f"{name:44} {verdict:8} {less:5.2f} {difference:10.1e} {seconds:6.1f}  {note[:90]}"
            )
            print(line, flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in tally.items()))


if __name__ == "__main__":
    main()
