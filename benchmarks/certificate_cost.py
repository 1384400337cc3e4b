"""What it costs to write a certificate: `python benchmarks/certificate_cost.py resnet18`.

Half of the units of a network of torchvision are chosen blindly and removed. Printed are CPU
seconds: of a forward, of hashing the tensors of both models, which is the least that a
certificate takes, and of all the rest of writing one. Each is the shortest of three.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from time import process_time
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [
    str(HERE / "zoo"),
    str(HERE.parent / "packages" / "prune-speedup" / "tests" / "zoo"),
]

import torch  # noqa: E402
from suites import torchvision_models as zoo  # noqa: E402

ROUNDS = 3


def shortest(task):
    """The fewest CPU seconds that a task took."""
    spent = []
    for _ in range(ROUNDS):
        began = process_time()
        task()
        spent.append(process_time() - began)
    return min(spent)


def costs(name, batch):
    """CPU seconds of a forward, of hashing and of a whole certificate, and its steps."""
    from judge import half_of, realistic

    from prune_core.speedup import shrink
    from prune_speedup.torch import speedup, units
    from prune_speedup.torch.certificate import reference

    torch.manual_seed(0)
    model, x = realistic(zoo.models.get_model(name, weights=None)), torch.rand(batch, 3, 224, 224)
    with torch.no_grad():
        model(x)
        forward = shortest(lambda: model(x))
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    hashing = shortest(lambda: reference.numbers_of(tensors))
    calls = []
    certify = speedup.certify
    chosen = half_of(units(model, x), 0.5)
    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(
            speedup, "certify", lambda *told: calls.append(told) or certify(*told)
        ):
            report = shrink(model, x, units=chosen, certificate=Path(folder) / "it.json")
        small = dict([*model.named_parameters(), *model.named_buffers()])
        hashing += shortest(lambda: reference.numbers_of(small))
        whole = shortest(lambda: certify(*calls[0]))
    return forward, hashing, whole, report.certificate.steps


def main():
    """Print a row of the table of docs/certificate.md for each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=["resnet18", "densenet121", "vit_b_16"])
    parser.add_argument("--batch", type=int, default=1, help="how many inputs a forward has")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in given.names:
        forward, hashing, whole, steps = costs(name, given.batch)
        rest = whole - hashing
        print(
            f"| {name} | {forward:.2f} s | {hashing:.2f} s | {rest:.2f} s | {steps} "
            f"| {whole / forward:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
