"""Say which tox environments a change concerns, for the matrix of the tests workflow.

    python scripts/affected.py origin/main    as JSON: environments, one for each job

A package's tests run when the package or something that it requires has changed. A change outside
of the packages concerns everything.
"""

import json
import sys
from pathlib import PurePath

from repo import extras_of, git, packages, siblings_of

EVERYWHERE = ("lint,types", "together,quickstart", "docs,dist")
# What a package has beside the environment of its own name.
MORE = {
    "prune-tf": ("tf-torch", "tf-jax", "frameworks"),
    "prune-speedup": ("transformers", "device"),
}


def affected(changed: list[str]) -> list[str]:
    """Return the environments for changed files.

    >>> affected(["packages/prune-lottery/src/prune_lottery/ticket.py"])[:1]
    ['lottery,mincore-lottery']
    >>> of_core = affected(["packages/prune-core/tests/test_curves.py"])
    >>> [job for job in affected(["tox.ini"]) if job not in of_core]  # all have to do with it
    []
    """
    folders = {PurePath(path).parts[:2] for path in changed}
    of_packages = {name for top, *rest in folders if top == "packages" for name in rest}
    elsewhere = {top for top, *_ in folders if top not in ("packages", "docs")}
    if elsewhere or not of_packages <= set(packages()):
        of_packages = set(packages())
    touched = [
        name for name in packages() if of_packages & {name, *siblings_of(name, extras_of(name))}
    ]
    jobs = []
    for name in touched:
        short = name.removeprefix("prune-")
        own = [short, f"mincore-{short}"] if "prune-core" in siblings_of(name) else [short]
        jobs.append(",".join([*own, *MORE.get(name, ())]))
    return [*jobs, *EVERYWHERE]


def main() -> None:
    changed = git("diff", "--name-only", f"{sys.argv[1]}...HEAD").splitlines()
    print(json.dumps(affected(changed)))


if __name__ == "__main__":
    main()
