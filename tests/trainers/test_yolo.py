"""A YOLO is trained, pruned, tuned as the small model that it is now, and exported."""

import os

import pytest
import torch

from prune_core import ConfigError, prune, shrink, unwrap

TINY = """\
nc: 1
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc]]
"""
IMAGE = torch.zeros(1, 3, 64, 64)


@pytest.fixture(scope="module")
def ultralytics(tmp_path_factory):
    # It writes its settings when it is imported, and would look for fonts in the network.
    os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("settings"))
    os.environ["YOLO_OFFLINE"] = "true"
    return pytest.importorskip("ultralytics")


@pytest.fixture
def folder(tmp_path):
    """Eight pictures of one bright square each, and the model."""
    import cv2
    import numpy as np

    for at in range(8):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[8 + at : 40 + at, 16:48] = 255
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{at}.png"), picture)
        (tmp_path / f"labels/{at}.txt").write_text(f"0 0.5 {(24 + at) / 64} 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(
        f"path: {tmp_path}\ntrain: images\nval: images\nnames: [square]\n"
    )
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def settings(folder, **more):
    return dict(
        data=str(folder / "data.yaml"), epochs=1, imgsz=64, batch=4, workers=0, device="cpu",
        plots=False, verbose=False, amp=False, project=str(folder), exist_ok=True, **more,
    )  # fmt: skip


def widths(model):
    return [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)]


def test_train_prune_tune(ultralytics, folder):
    from prune_trainers.yolo import trainer_of

    yolo = ultralytics.YOLO(str(folder / "tiny.yaml"), task="detect")
    yolo.train(name="dense", **settings(folder))
    dense = widths(yolo.model)
    _, masks = prune(yolo.model.eval(), "l1", target={"parameters": 0.6}, example_inputs=IMAGE)
    report = shrink(unwrap(yolo.model), IMAGE, masks)
    small = widths(yolo.model)
    assert sum(small) < sum(dense)
    assert report.difference < 1e-4
    before = yolo.model.model[0].conv.weight.detach().clone()

    yolo.train(name="small", trainer=trainer_of(yolo), **settings(folder))
    assert widths(yolo.model) == small
    assert not torch.equal(yolo.model.model[0].conv.weight, before)  # it was trained
    again = ultralytics.YOLO(str(folder / "small/weights/best.pt"))
    assert widths(again.model) == small
    file = again.export(format="torchscript", imgsz=64, device="cpu")
    assert torch.jit.load(file)(IMAGE).shape[1] == 5


RULES = [
    {"final_sparsity": 0.5, "end_step": 3, "op_types": ["Conv2d"]},
    {"op_partial_names": ["model.4."], "exclude": True},
]


def schedule_of(model, rules=RULES):
    from prune_schedule import AGPPruner

    together = {"mode": "dependency_aware", "dummy_input": IMAGE}
    return AGPPruner(model, rules, pruning_algorithm="l1", pruning_params=together)


def test_sparsity_grows_while_ultralytics_trains(ultralytics, folder):
    from prune_trainers.yolo import PruneCallback, trainer_of

    yolo = ultralytics.YOLO(str(folder / "tiny.yaml"), task="detect")
    callback = PruneCallback(yolo, schedule_of)
    means, masked = [], []

    def look(trainer):
        means.append(trainer.ema.ema.model[0].conv.weight.detach().clone())
        masked.append(means[-1][~callback.pruner.masks["model.0.conv"]["weight"]])

    yolo.add_callback("on_train_epoch_end", look)
    yolo.train(name="grown", **settings(folder) | {"epochs": 3}, nbs=4)  # of two steps each
    assert callback.pruner.steps == 6
    saved = ultralytics.YOLO(str(folder / "grown/weights/last.pt")).model
    for name, tensors in callback.pruner.masks.items():
        weight = saved.get_submodule(name).weight
        assert not weight[~tensors["weight"]].any()
        assert weight[tensors["weight"]].any()
    assert not torch.equal(means[0], means[1])  # what is saved has followed what is trained
    assert all(each.numel() and not each.any() for each in masked)

    dense = widths(yolo.model)
    report = callback.shrink(IMAGE)
    assert report.difference < 1e-4
    small = widths(yolo.model)
    assert sum(small) < sum(dense)
    assert yolo.model.model[0].conv.out_channels == 8
    with pytest.raises(ConfigError, match=r"call yolo.train\(\) first"):
        callback.shrink(IMAGE)

    yolo.callbacks["on_train_epoch_end"].remove(look)
    yolo.train(name="tuned", trainer=trainer_of(yolo), **settings(folder))
    assert widths(yolo.model) == small
    file = ultralytics.YOLO(str(folder / "tuned/weights/best.pt")).export(
        format="torchscript", imgsz=64, device="cpu"
    )
    assert torch.jit.load(file)(IMAGE).shape[1] == 5


@pytest.mark.parametrize("end", [{"end_step": 3}, {"end_epoch": 2}])
def test_a_schedule_is_resumed_by_ultralytics(ultralytics, folder, end):
    from prune_trainers.yolo import PruneCallback

    class StopError(Exception):
        pass

    def stop(trainer):
        if trainer.epoch == 0:
            raise StopError

    rules = [{"final_sparsity": 0.5, "op_types": ["Conv2d"], **end}, RULES[1]]
    yolo = ultralytics.YOLO(str(folder / "tiny.yaml"), task="detect")
    PruneCallback(yolo, lambda model: schedule_of(model, rules))
    yolo.add_callback("on_fit_epoch_end", stop)
    with pytest.raises(StopError):
        yolo.train(name="stopped", **settings(folder) | {"epochs": 2}, nbs=4)
    yolo = ultralytics.YOLO(str(folder / "stopped/weights/last.pt"))
    callback = PruneCallback(yolo, lambda model: schedule_of(model, rules))
    yolo.train(resume=True)
    assert callback.pruner.steps == 4
    assert callback.pruner.epoch == 1
    assert float(callback.pruner.masks["model.0.conv"]["weight"].float().mean()) == 0.5


def test_export_without_training(ultralytics, folder, monkeypatch):
    from prune_trainers.yolo import ready_to_export

    yolo = ultralytics.YOLO(str(folder / "tiny.yaml"), task="detect")
    _, masks = prune(yolo.model.eval(), "l1", sparsity=0.25, example_inputs=IMAGE)
    shrink(unwrap(yolo.model), IMAGE, masks)
    ready_to_export(yolo)
    monkeypatch.chdir(folder)
    with torch.no_grad():
        small = yolo.model(IMAGE)[0]
    file = yolo.export(format="torchscript", imgsz=64, device="cpu")
    assert torch.allclose(torch.jit.load(file)(IMAGE), small, atol=1e-3)


def test_what_does_not_fit_is_said(ultralytics, folder):
    from prune_trainers.yolo import PruneCallback, trainer_of

    for of in (trainer_of, lambda model: PruneCallback(model, schedule_of)):
        with pytest.raises(ConfigError, match="give a model of ultralytics"):
            of(torch.nn.Linear(2, 2))
    yolo = ultralytics.YOLO(str(folder / "tiny.yaml"), task="detect")
    with pytest.raises(ConfigError, match="must be a function of the model"):
        PruneCallback(yolo, schedule_of(yolo.model))
    data = folder / "data.yaml"
    data.write_text(data.read_text().replace("[square]", "[square, circle]"))
    with pytest.raises(ConfigError, match="The data has 2 classes and the pruned model 1"):
        yolo.train(name="other", trainer=trainer_of(yolo), **settings(folder))
