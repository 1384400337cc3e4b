"""Thousands of wrong certificates, all of which must be refused.

    python benchmarks/certificate_mutations.py 2000

One thing is changed in a right certificate, or in a tensor of one of the two files, and the hashes
are made to fit again.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path
from time import process_time

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "packages" / "prune-speedup" / "tests" / "certificate"))

from mutations import attack  # noqa: E402
from networks import case  # noqa: E402

from prune_core import shrink  # noqa: E402
from prune_verify.tensors import read_tensors  # noqa: E402


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    warnings.simplefilter("ignore")
    passed = 0
    for kind in ("convolutions", "attention", "groups"):
        model, x, masks, producers = case(kind)
        with tempfile.TemporaryDirectory() as folder:
            shrink(model, x, masks, certificate=folder)
            names = ("original.safetensors", "small.safetensors")
            files = [read_tensors(Path(folder) / name) for name in names]
            told = json.loads((Path(folder) / "certificate.json").read_text())
            start = process_time()
            made, survived = attack(*files, told, producers, count, seed=1)
        passed += len(survived)
        print(
            f"{kind}: {sum(made.values())} wrong certificates, {len(survived)} accepted, ", end=""
        )
        print(f"{process_time() - start:.0f} s; " + ", ".join(f"{k} {n}" for k, n in made.items()))
        for name, _ in survived:
            print("  accepted:", name)
    sys.exit(bool(passed))


if __name__ == "__main__":
    main()
