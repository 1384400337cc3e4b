"""Does a network of 300 and 100 hidden neurons contain winning lottery tickets?

    python examples/lottery_mnist.py --data folder/with/the/four/mnist/files
    python examples/lottery_mnist.py --digits          # small images, a minute

It trains LeNet-300-100, prunes it in rounds, rewinds what is left to its initial values and trains
that again; and for comparison, the same masks with new random weights, and masks drawn by lot with
the initial weights. Run it again after it was killed, and it goes on where it was.

It needs prune-lottery and prune-filter; scikit-learn for `--digits`; matplotlib for the plots.
"""

import argparse
import csv
import gzip
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prune_core.files import replacing
from prune_lottery import LotteryTicket, Round, RoundRecord, run_control

BATCH = 60
LEARNING_RATE = 1.2e-3
ARMS = ("ticket", "reinit", "random_mask")


@dataclass
class Images:
    """Everything in memory: at this size a data loader would take longer than the network."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @classmethod
    def split(
        cls, learn: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], held: int
    ) -> "Images":
        """Hold back some of the training images, the same ones whatever the seed is."""
        order = torch.randperm(len(learn[0]), generator=torch.Generator().manual_seed(0))
        rest, held_back = order[held:], order[:held]
        return cls(
            (learn[0][rest], learn[1][rest]), (learn[0][held_back], learn[1][held_back]), test
        )


def idx(path: Path) -> Tensor:
    """Read a file in the format that MNIST comes in."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    return torch.frombuffer(bytearray(content[4 + 4 * axes :]), dtype=torch.uint8).reshape(shape)


def mnist(folder: Path) -> Images:
    def part(name: str) -> tuple[Tensor, Tensor]:
        pixels = idx(folder / f"{name}-images-idx3-ubyte.gz").flatten(1) / 255
        return (pixels - 0.1307) / 0.3081, idx(folder / f"{name}-labels-idx1-ubyte.gz").long()

    return Images.split(part("train"), part("t10k"), held=5000)


def digits() -> Images:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 16 - 0.3
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], torch.tensor(labels)[order]
    return Images.split((images[450:], labels[450:]), (images[:450], labels[:450]), held=200)


def lenet(pixels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(pixels, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


@torch.no_grad()
def measure(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return loss and accuracy."""
    outputs = model(images)
    correct = (outputs.argmax(1) == labels).float().mean()
    return F.cross_entropy(outputs, labels).item(), correct.item()


def when_to_look(total: int) -> set[int]:
    """Often at the beginning, where curves differ most."""
    return {0, 100, 200, 300, 400, 500, 750, *range(1000, total, 500), total}


class Experiment:
    """One seed: a lottery, and its controls."""

    def __init__(self, images: Images, epochs: int) -> None:
        self.images = images
        self.total = epochs * (len(images.train[0]) // BATCH)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.images.train
        while True:
            for chosen in torch.randperm(len(images)).split(BATCH):
                if len(chosen) == BATCH:
                    yield images[chosen], labels[chosen]

    def train(self, model: nn.Module, this_round: Round) -> list[list[float]]:
        """Train, and return `[iteration, validation loss, test accuracy]` again and again."""
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
        batches, looks, curve = self.batches(), when_to_look(self.total), []
        started = time.perf_counter()
        for step in this_round.steps(self.total):
            if step in looks:
                curve.append(self.look(model, step))
            images, labels = next(batches)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        curve.append(self.look(model, self.total))
        print(
            f"  round {this_round.index:2}, sparsity {this_round.sparsity:6.1%}: "
            f"test accuracy {curve[-1][2]:.2%} in {time.perf_counter() - started:.0f} s",
            flush=True,
        )
        return curve

    def look(self, model: nn.Module, step: int) -> list[float]:
        loss, _ = measure(model, *self.images.validation)
        return [step, loss, measure(model, *self.images.test)[1]]

    def score(self, model: nn.Module) -> float:
        """Accuracy on images that are neither trained on nor reported."""
        return measure(model, *self.images.validation)[1]

    def run(
        self, seed: int, rounds: int, sparsity: float, controls: Sequence[int], checkpoint: Path
    ) -> dict[str, Sequence[RoundRecord]]:
        torch.manual_seed(seed)
        model = lenet(self.images.train[0].shape[1])
        lottery = LotteryTicket(
            model,
            [{"op_types": ["Linear"], "sparsity": sparsity}],
            rounds=rounds,
            seed=seed,
            checkpoint=checkpoint,
        )
        work = {"train": self.train, "evaluate": self.score}
        print(f"seed {seed}: tickets", flush=True)
        found: dict[str, Sequence[RoundRecord]] = {"ticket": lottery.run(**work).rounds}
        for arm in ARMS[1:]:
            print(f"seed {seed}: {arm}", flush=True)
            found[arm] = run_control(lottery, arm, rounds=controls, **work)
        return found


def rows(seed: int, arm: str, record: RoundRecord) -> tuple[list[object], list[list[object]]]:
    """Return a line of the summary, and the lines of the curve."""
    label = [seed, arm, record.index, f"{record.sparsity:.4f}"]
    stop, _, at_stop = min(record.log, key=lambda point: point[1])
    summary = [*label, int(stop), f"{at_stop:.4f}", f"{record.log[-1][2]:.4f}"]
    curve = [
        [*label, int(step), f"{loss:.4f}", f"{accuracy:.4f}"] for step, loss, accuracy in record.log
    ]
    return summary, curve


SUMMARY = ("seed", "arm", "round", "sparsity", "stop_iteration", "stop_accuracy", "end_accuracy")
CURVES = ("seed", "arm", "round", "sparsity", "iteration", "validation_loss", "test_accuracy")


def write_csv(path: Path, header: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with the four .gz files of MNIST")
    source.add_argument("--digits", action="store_true", help="scikit-learn's 8 x 8 digits instead")
    parser.add_argument("--out", type=Path, default=Path("lottery-results"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sparsity", type=float, default=0.96)
    parser.add_argument("--control-every", type=int, default=5, help="which rounds get controls")
    wanted = parser.parse_args()

    images = digits() if wanted.digits else mnist(wanted.data)
    experiment = Experiment(images, wanted.epochs)
    controls = range(wanted.control_every, wanted.rounds + 1, wanted.control_every)
    summary: list[list[object]] = []
    curves: list[list[object]] = []
    for seed in range(wanted.seeds):
        checkpoint = wanted.out / f"seed{seed}.pt"
        found = experiment.run(seed, wanted.rounds, wanted.sparsity, controls, checkpoint)
        for arm, records in found.items():
            for record in records:
                line, points = rows(seed, arm, record)
                summary.append(line)
                curves.extend(points)
        write_csv(wanted.out / "summary.csv", SUMMARY, summary)
        write_csv(wanted.out / "curves.csv", CURVES, curves)
    print(f"\nWritten to {wanted.out}: summary.csv, curves.csv")
    try:
        import lottery_plots
    except ImportError:
        print("For the plots: pip install matplotlib, and run this again.")
    else:
        lottery_plots.draw(wanted.out)
        print("and accuracy_by_iteration.svg, accuracy_by_sparsity.svg")


if __name__ == "__main__":
    main()
