"""The published experiments: their data in every form, and a stage that goes on where it was."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.headline.data import Batches, Images, read  # noqa: E402
from benchmarks.headline.hardware import Hardware  # noqa: E402
from benchmarks.headline.networks import build  # noqa: E402
from benchmarks.headline.page import page  # noqa: E402
from benchmarks.headline.training import Recipe, accuracy, train  # noqa: E402

EACH, TESTED = 420, 60


@pytest.fixture(scope="module")
def images():
    """Images whose class is their brightness, those to train with in five parts."""
    generator = np.random.default_rng(0)

    def part(n):
        labels = np.arange(n) % 10
        noise = generator.integers(0, 20, (n, 3, 32, 32))
        return (noise + 22 * labels[:, None, None, None]).astype(np.uint8), labels

    return [*(part(EACH) for _ in range(5)), part(TESTED)]


def as_binary(folder, images):
    for n, (pixels, labels) in enumerate(images, 1):
        name = f"data_batch_{n}.bin" if n < 6 else "test_batch.bin"
        rows = np.concatenate([labels[:, None], pixels.reshape(len(labels), -1)], axis=1)
        rows.astype(np.uint8).tofile(folder / name)


def as_pickles(folder, images):
    folder = folder / "cifar-10-batches-py"
    folder.mkdir()
    for n, (pixels, labels) in enumerate(images, 1):
        name = f"data_batch_{n}" if n < 6 else "test_batch"
        batch = {b"data": pixels.reshape(len(labels), -1), b"labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))


@pytest.mark.parametrize("write", [as_binary, as_pickles])
def test_every_form_holds_the_same(tmp_path, images, write):
    write(tmp_path, images)
    learn, test = read(tmp_path)
    assert (len(learn), len(test)) == (5 * EACH, TESTED)
    assert learn.pixels[EACH].numpy().tolist() == images[1][0][0].tolist()
    assert test.labels.tolist() == images[5][1].tolist()


def test_a_folder_for_each_class(tmp_path, images):
    image = pytest.importorskip("PIL.Image")
    for name in ("train", "test"):
        for label in range(2):
            (tmp_path / name / f"class{label}").mkdir(parents=True)
            pixels = images[5][0][label].transpose(1, 2, 0)
            image.fromarray(pixels).save(tmp_path / name / f"class{label}" / "0.png")
    learn, _ = read(tmp_path)
    assert learn.labels.tolist() == [0, 1]
    assert learn.pixels[1].numpy().tolist() == images[5][0][1].tolist()


def test_a_folder_with_something_else_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="There is no CIFAR-10 in"):
        read(tmp_path)


def test_a_crop_is_a_part_of_the_padded_image_or_of_its_mirror():
    pixels = torch.randint(1, 256, (64, 3, 32, 32), dtype=torch.uint8)
    same = Images(pixels[:1].expand(64, -1, -1, -1).contiguous(), torch.zeros(64))
    batch, _ = next(iter(Batches(same, 64, torch.Generator().manual_seed(0))))
    padded = torch.nn.functional.pad(pixels[:1], [4] * 4)
    crops = [padded[:, :, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    crops += [crop.flip(3) for crop in crops]
    possible = Images(torch.cat(crops), torch.zeros(len(crops))).scaled()
    found = {int((possible == each).flatten(1).all(1).nonzero()[0, 0]) for each in batch}
    assert len(found) > 30  # of 162
    assert min(found) < 81 <= max(found)


def test_what_is_learnt_is_found_again(images):
    pixels, labels = images[0]
    few = Images(torch.from_numpy(pixels), torch.from_numpy(labels))
    torch.manual_seed(0)
    model, hardware = build("ResNet-20", narrower=4), Hardware()
    before = accuracy(model, few, hardware)
    train(model, few, Recipe(epochs=12, batch=32), hardware, seed=0)
    assert accuracy(model, few, hardware) > max(0.5, before)


def test_a_stage_goes_on_where_it_was_and_becomes_a_page(tmp_path, images):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    as_binary(data, images)
    command = [sys.executable, "-m", "benchmarks.headline", "run", "criteria"]
    command += ["--data", data, "--out", out, "--scale", "small", "--images", "64"]
    command += ["--effort", "0.5", "--items", "l1", "random"]

    def run():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout, (out / "results.jsonl").read_text()

    printed, results = run()
    assert "takes about" in printed
    rows = [json.loads(line) for line in results.splitlines()]
    assert [row["item"] for row in rows] == ["ResNet-20", "random", "l1"]
    assert all(row["flops"] <= 0.5 for row in rows[1:])
    assert all(row["difference"] < 1e-4 for row in rows[1:])

    # The last line is lost, half of it in the middle of being written.
    (out / "results.jsonl").write_text(results[:-40])
    _, again = run()
    assert json.loads(again.splitlines()[-1])["item"] == "l1"
    printed, unchanged = run()
    assert unchanged == again
    assert "everything is in" in printed

    written = page([out / "results.jsonl"])
    assert f"{rows[2]['recovered']:.2%}" in written
    assert "Not measured yet" in written
