"""The models of the zoo: name → (builder, example inputs). Nothing is downloaded."""

import torch
from torch import nn

IMAGE = (2, 3, 64, 64)


def torch_layers():
    """torch's own sequence layers, with something before and behind them."""

    class Recurrent(nn.Module):
        def __init__(self, layer, **options):
            super().__init__()
            self.stem, self.head = nn.Linear(8, 12), nn.Linear(16, 4)
            self.layer = layer(12, 8, 2, batch_first=True, bidirectional=True, **options)

        def forward(self, x):
            return self.head(self.layer(self.stem(x))[0])

    class Encoder(nn.Module):
        def __init__(self, **options):
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)
            self.table, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x):
            return self.head(self.layers(self.table(x)))

    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)
            self.layers = nn.Transformer(32, 4, 2, 2, 64)

        def forward(self, x):
            return self.head(self.layers(self.table(x), self.table(x[:4])))

    series, tokens = torch.rand(2, 6, 8), torch.randint(0, 50, (7, 3))
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        yield f"torch/{kind.__name__}", lambda kind=kind: Recurrent(kind), series
    yield "torch/TransformerEncoder", Encoder, tokens
    yield "torch/TransformerEncoder-prenorm", lambda: Encoder(norm_first=True), tokens
    yield "torch/Transformer", Translator, tokens


def torchvision_models():
    """Every classification model that torchvision builds by name."""
    for name in ("nms", "qnms"):
        # The wheel beside a CPU build of torch lacks these, and fails to import without them.
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    from torchvision import models

    large = ("vit_", "maxvit", "inception", "alexnet", "googlenet")
    for name in models.list_models(models):
        size = 224 if name.startswith(large) else 64
        size = 299 if name.startswith("inception") else size
        yield (
            f"torchvision/{name}",
            lambda name=name: models.get_model(name),
            torch.rand(2, 3, size, size),
        )


def timm_models():
    """One small model of each of timm's families."""
    import timm

    seen = set()
    for name in timm.list_models():
        family = timm.models._registry._model_to_module.get(name)
        if family in seen:
            continue
        smallest = min(
            timm.list_models(module=family),
            key=lambda n: (not any(w in n for w in ("tiny", "atto", "nano", "18", "small")), n),
        )
        seen.add(family)
        size = timm.models.get_pretrained_cfg(smallest)
        shape = size.input_size if size else (3, 224, 224)
        yield f"timm/{smallest}", lambda n=smallest: timm.create_model(n), torch.rand(1, *shape)


SUITES = {"torch": torch_layers, "torchvision": torchvision_models, "timm": timm_models}
