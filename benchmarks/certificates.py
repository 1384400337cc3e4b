"""How many models of the zoo get a certificate that checks: `python benchmarks/certificates.py`.

Of each model half of the units are chosen blindly, as for the zoo, and removed. The certificate is
written with both models, and checked from the files alone. What became of it is added to a file of
JSON lines; a run that is started again goes on where it was.
"""

import argparse
import copy
import json
import sys
import tempfile
import warnings
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from time import process_time

HERE = Path(__file__).parent
TESTS = HERE.parent / "packages" / "prune-speedup" / "tests" / "zoo"
sys.path[:0] = [str(HERE / "zoo"), str(TESTS)]

from processes import in_a_process, read  # noqa: E402
from suites import SUITES, suite  # noqa: E402


def main():
    options = parsed()
    # The processes are copies of this one: what they all need is imported once, suites first.
    for name in options.suites:
        suite(name)
    for module in ("judge", "prune_core.speedup", "prune_speedup.torch", "prune_verify"):
        import_module(module)
    file = Path(options.results)
    done = {name for name, row in read(file).items() if row["status"] not in options.again}
    count = 0
    for name in options.suites:
        zoo = suite(name)
        for model in list(zoo.names(every=False))[:: options.every]:
            full = f"{name}/{model}"
            if full in done or options.only not in full:
                continue
            row = {"model": full, **in_a_process(partial(quietly, zoo, model), options)}
            with file.open("a") as lines:
                print(json.dumps(row), file=lines)
            print(f"{full:44} {row['status']:10} {row.get('reason', '')[:200]}", flush=True)
            count += 1
    tally = Counter(row["status"] for row in read(file).values())
    print(", ".join(f"{count} {status}" for status, count in tally.items()))


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES), help=", ".join(SUITES))
    parser.add_argument("--results", default="certificates.jsonl", help="where the rows are kept")
    parser.add_argument("--only", default="", help="a part of a model's name")
    parser.add_argument("--every", type=int, default=1, help="take each of so many models")
    parser.add_argument("--again", nargs="*", default=[], help="run models of these states again")
    parser.add_argument("--seconds", type=int, default=200, help="that a model may take")
    parser.add_argument("--gigabytes", type=float, default=10, help="that a model may take")
    return parser.parse_args()


def quietly(zoo, model):
    warnings.simplefilter("ignore")
    return certified(lambda: zoo.build(model))


def certified(build):
    """What became of the certificate of one model."""
    import torch
    from judge import half_of, realistic

    from prune_core.speedup import shrink
    from prune_speedup.torch import units
    from prune_speedup.torch.record.inputs import call
    from prune_verify import Rejected, check

    torch.manual_seed(0)
    model, inputs = build()
    model = realistic(model)
    chosen = half_of(units(model, inputs), 0.5)
    timed = copy.deepcopy(model)
    with torch.no_grad():
        call(timed, inputs)
        start = process_time()
        call(timed, inputs)
        forward = process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        report = shrink(model, inputs, units=chosen, verify=False, certificate=folder)
        found = report.certificate
        row = {
            "removed": report.removed,
            "forward": round(forward, 4),
            "seconds": {key: round(each, 4) for key, each in found.seconds.items()},
            "steps": found.steps,
            "assumptions": found.assumptions,
        }
        if found.reason:
            return {"status": "none", "reason": found.reason, **row}
        files = (Path(folder) / name for name in ("original.safetensors", "small.safetensors"))
        row["bytes"] = Path(found.path).stat().st_size
        start = process_time()
        try:
            check(*files, found.path)
        except Rejected as error:
            return {"status": "rejected", "reason": str(error), **row}
        return {"status": "checks", "check": round(process_time() - start, 4), **row}


if __name__ == "__main__":
    main()
