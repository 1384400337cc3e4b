"""Every model that ultralytics describes in a yaml file, at the smallest scale it has.

They are built from the files of the package, with random weights; nothing is downloaded. What a
model returns in eval mode is what is compared: boxes and scores before boxes are chosen.
"""

import os
import tempfile
from pathlib import Path

import torch

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
os.environ.setdefault("YOLO_VERBOSE", "false")

for _name in ("nms", "qnms"):
    # torchvision beside a CPU build of torch lacks these, and fails to import without them.
    if not hasattr(torch.ops.torchvision, _name):
        torch.library.define(
            f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )

import ultralytics  # noqa: E402
from ultralytics.nn import tasks  # noqa: E402

_FOLDER = Path(ultralytics.__file__).parent / "cfg" / "models"
_LARGER = ("yolov9c", "yolov9e", "yolov9m", "yolov9s", "rtdetr-x", "rtdetr-resnet101")
_LARGER += ("yolov8-cls-resnet101", "yolov10b", "yolov10l", "yolov10m", "yolov10s", "yolov10x")
"""Models that differ from another one in nothing but their widths and depths."""


_LAST = ("yolov3", "yolov3-spp", "rtdetr-l", "rtdetr-resnet50", "yolov9c-seg", "yolov9e-seg")
"""What takes longest."""


def names(every=False):
    found = sorted(path.stem for path in _FOLDER.rglob("*.yaml"))
    found = [name for name in found if every or name not in _LARGER]
    return [name for name in found if name not in _LAST] + [n for n in _LAST if n in found]


def build(name):
    [path] = _FOLDER.rglob(f"{name}.yaml")
    config = tasks.yaml_model_load(path)
    if "scales" in config:
        config["scale"] = next(iter(config["scales"]))
    config["yaml_file"] = path.name
    for layer in config["backbone"]:
        # A backbone of torchvision would be downloaded.
        layer[3] = [None if each == "DEFAULT" else each for each in layer[3]]
    torch.manual_seed(0)
    model = _kind(name, config)(config, verbose=False)
    # A transformer of RT-DETR chooses 300 places, and so many there have to be.
    size = 160 if "detr" in name else 128 if "p6" in name else 64
    return model.eval(), torch.rand(1, 3, size, size)


def _kind(name, config):
    if "detr" in name:
        return tasks.RTDETRDetectionModel
    if "world" in name:
        return tasks.WorldModel
    if "yoloe" in name:
        return tasks.YOLOESegModel if "seg" in name else tasks.YOLOEModel
    kinds = {
        "classify": tasks.ClassificationModel,
        "detect": tasks.DetectionModel,
        "obb": tasks.OBBModel,
        "pose": tasks.PoseModel,
        "segment": tasks.SegmentationModel,
        "semantic": tasks.SemanticSegmentationModel,
        "depth": tasks.DepthModel,
    }
    return kinds[tasks.guess_model_task(config)]
