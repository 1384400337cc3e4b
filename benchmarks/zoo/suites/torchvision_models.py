"""torchvision's classifiers, segmentation models, detection backbones and video models."""

import torch
from torch import nn

for _name in ("nms", "qnms"):
    # The wheel beside a CPU build of torch lacks these, and fails to import without them.
    if not hasattr(torch.ops.torchvision, _name):
        torch.library.define(
            f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )

from torchvision import models  # noqa: E402

_LARGER = [
    "convnext_base",
    "convnext_large",
    "convnext_small",
    "densenet161",
    "densenet169",
    "densenet201",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_v2_l",
    "efficientnet_v2_m",
    "mnasnet0_75",
    "mnasnet1_0",
    "mnasnet1_3",
    "regnet_x_16gf",
    "regnet_x_1_6gf",
    "regnet_x_32gf",
    "regnet_x_3_2gf",
    "regnet_x_800mf",
    "regnet_x_8gf",
    "regnet_y_128gf",
    "regnet_y_16gf",
    "regnet_y_1_6gf",
    "regnet_y_32gf",
    "regnet_y_3_2gf",
    "regnet_y_800mf",
    "regnet_y_8gf",
    "resnet101",
    "resnet152",
    "resnet34",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "swin_b",
    "swin_s",
    "swin_v2_b",
    "swin_v2_s",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vit_b_32",
    "vit_h_14",
    "vit_l_16",
    "vit_l_32",
    "wide_resnet101_2",
    "segmentation/deeplabv3_resnet101",
    "segmentation/fcn_resnet101",
    "detection/fasterrcnn_mobilenet_v3_large_fpn",
    "detection/keypointrcnn_resnet50_fpn",
    "detection/maskrcnn_resnet50_fpn",
    "detection/maskrcnn_resnet50_fpn_v2",
    "detection/retinanet_resnet50_fpn_v2",
    "detection/fasterrcnn_resnet50_fpn_v2",
    "video/swin3d_b",
    "video/swin3d_s",
]
"""Models that differ from one on the short list in nothing but their widths and depths."""

_KINDS = {
    "": models,
    "segmentation/": models.segmentation,
    "detection/": models.detection,
    "video/": models.video,
}
_NEEDS_224 = ("vit_", "maxvit", "video/mvit")


def names(every=False):
    found = [prefix + name for prefix, kind in _KINDS.items() for name in models.list_models(kind)]
    return [name for name in found if every or name not in _LARGER]


def build(name):
    bare = name.rpartition("/")[2]
    if name.startswith("detection/"):
        # Anchors and the choice of boxes hold no parameters; torch.export refuses them too.
        detector = models.get_model(bare, weights=None, weights_backbone=None)
        size = 300 if bare.startswith("ssd300") else 96
        return _Backbone(detector), torch.rand(1, 3, size, size)
    options = {"weights_backbone": None} if name.startswith("segmentation/") else {}
    model = models.get_model(bare, weights=None, **options)
    if name.startswith("video/"):
        size = 224 if name.startswith((*_NEEDS_224, "video/s3d")) else 64
        return model, torch.rand(1, 3, 16, size, size)
    size = 224 if name.startswith(_NEEDS_224) else 299 if bare.startswith("inception") else 64
    size = 96 if bare in ("alexnet", "googlenet") else size
    return model, torch.rand(2, 3, size, size)


class _Backbone(nn.Module):
    """A detector's backbone and, where it is fully convolutional, its head."""

    def __init__(self, detector):
        super().__init__()
        self.backbone = detector.backbone
        self.head = getattr(detector, "head", None) or getattr(detector.rpn, "head", None)

    def forward(self, x):
        features = self.backbone(x)
        features = [features] if isinstance(features, torch.Tensor) else list(features.values())
        return self.head(features)
