"""Half of the units of every model of the zoo, chosen blindly: `python benchmarks/zoo/run.py`.

Each model runs in a process of its own with a limit on time and memory. What became of it is
added to a file of JSON lines at once; a run that is started again goes on where it was.
"""

import argparse
import json
import sys
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "packages" / "prune-speedup" / "tests" / "zoo")]

from processes import in_a_process, read  # noqa: E402
from suites import LIBRARIES, SUITES, suite  # noqa: E402


def main():
    options = parsed()
    file = Path(options.results)
    if options.page:
        from judge import EXACT, VISIBLE
        from table import page_of

        sys.stdout.write(page_of(read(file), exact=EXACT, visible=VISIBLE))
        return
    done = {name for name, row in read(file).items() if row["status"] not in options.again}
    for name in options.suites:
        zoo = suite(name)
        for model in zoo.names(every=options.every):
            full = f"{name}/{model}"
            if options.only not in full or (full in done and not options.only):
                continue
            row = {"model": full, **in_a_process(partial(judged, zoo, model), options)}
            row["versions"] = versions_of(name)
            with file.open("a") as lines:
                print(json.dumps(row), file=lines)
            print(line_of(row), flush=True)
    tally = Counter(row["status"] for row in read(file).values())
    print(", ".join(f"{count} {status}" for status, count in tally.items()))


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES), help=", ".join(SUITES))
    parser.add_argument("--results", default="zoo.jsonl", help="where the rows are kept")
    parser.add_argument("--only", default="", help="a part of a model's name; judged again")
    parser.add_argument("--again", nargs="*", default=[], help="judge models of these states again")
    parser.add_argument("--every", action="store_true", help="sizes that differ in width too")
    parser.add_argument("--seconds", type=int, default=300, help="that a model may take")
    parser.add_argument("--gigabytes", type=float, default=12, help="that a model may take")
    parser.add_argument("--page", action="store_true", help="print the page, run nothing")
    return parser.parse_args()


def versions_of(name):
    """The versions of torch and of the library of a suite."""
    return {each: version(each) for each in dict.fromkeys(["torch", LIBRARIES.get(name, "torch")])}


def judged(zoo, model):
    from judge import judge

    return judge(lambda: zoo.build(model))


def line_of(row):
    numbers = (row.get(key, float("nan")) for key in ("removed", "flops", "difference", "seconds"))
    removed, flops, apart, seconds = numbers
    return (
        f"{row['model']:44} {row['status']:8} {removed:5.2f} {flops:5.2f} {apart:8.1e} "
        f"{seconds:6.1f} s  {row['reason'][:120]}"
    )


if __name__ == "__main__":
    main()
