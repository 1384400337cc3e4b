"""Small models, each built around one thing that makes structured pruning difficult."""

import torch
from torch import nn

from sketches.forwards import (
    ChannelsLast,
    DataDependent,
    InPlace,
    Mixer,
    NestedOutputs,
    ResNet,
    UNet,
)
from sketches.groups import (
    ChannelAttention,
    DepthwiseThenGrouped,
    GatedUnits,
    GroupNorms,
    SelectiveKernel,
    SqueezeExcite,
)
from sketches.made_weights import (
    GainedWeights,
    Hypernetwork,
    OwnParametrisation,
    SharedBlocks,
    SpectralNorms,
    TiedEmbedding,
    WeightNorms,
    WeightStandardisation,
)
from sketches.moved_channels import (
    ConcatOfConcats,
    Focus,
    PixelShuffles,
    Shuffle,
    TorchShuffle,
    UnevenSplit,
    Windows,
)
from sketches.written_sizes import (
    CachedTable,
    CountedExperts,
    Einsums,
    Experts,
    FusedHeads,
    LiteralViews,
    Llama,
    PooledTokens,
    TurnedHalves,
)


class Classifier(nn.Module):
    """Whatever makes features of an image, and a head behind it."""

    def __init__(self, features, width, classes=5):
        super().__init__()
        self.features, self.head = features, nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def _image():
    return torch.rand(2, 3, 8, 8)


def _tokens():
    return torch.randint(0, 40, (2, 6))


_WITH_HEAD = {
    "channel-shuffle": (Shuffle, 16),
    "torch-channel-shuffle": (TorchShuffle, 16),
    "uneven-split": (UnevenSplit, 36),
    "concat-of-concats": (ConcatOfConcats, 24),
    "focus": (Focus, 16),
    "pixel-shuffle": (PixelShuffles, 16),
    "shifted-windows": (Windows, 32),
    "depthwise-then-grouped": (DepthwiseThenGrouped, 16),
    "group-norms": (GroupNorms, 16),
    "squeeze-excite": (SqueezeExcite, 16),
    "channel-attention": (ChannelAttention, 16),
    "gated-units": (GatedUnits, 16),
    "selective-kernel": (SelectiveKernel, 16),
    "weight-standardisation": (WeightStandardisation, 16),
    "weights-with-gain": (GainedWeights, 16),
    "weight-norm": (WeightNorms, 16),
    "spectral-norm": (SpectralNorms, 16),
    "own-parametrisation": (OwnParametrisation, 16),
    "shared-blocks": (SharedBlocks, 32),
    "hypernetwork": (Hypernetwork, 16),
    "einsum": (Einsums, 32),
    "in-place": (InPlace, 16),
    "data-dependent": (DataDependent, 16),
    "resnet": (ResNet, 32),
    "mixer": (Mixer, 32),
    "channels-last": (ChannelsLast, 32),
    "cached-table": (CachedTable, 32),
}
_WHOLE = {
    "literal-views": (LiteralViews, _image),
    "tied-embedding": (TiedEmbedding, _tokens),
    "fused-heads": (FusedHeads, _tokens),
    "llama": (Llama, _tokens),
    "mixture-of-experts": (Experts, _tokens),
    "counted-experts": (CountedExperts, _tokens),
    "turned-halves": (TurnedHalves, _tokens),
    "pooled-tokens": (PooledTokens, _tokens),
    "nested-outputs": (NestedOutputs, _image),
    "u-net": (UNet, _image),
}


def names(every=False):
    return [*_WITH_HEAD, *_WHOLE]


def build(name):
    """A model and example inputs for it."""
    if name in _WITH_HEAD:
        features, width = _WITH_HEAD[name]
        return Classifier(features(), width), _image()
    make, inputs = _WHOLE[name]
    return make(), inputs()
