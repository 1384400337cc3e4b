"""Layers that several models are built of."""

from torch import nn

__all__ = ["conv"]


def conv(width_in, width_out, kernel=3, **options):
    """A convolution, its norm and what comes behind."""
    padding = options.pop("padding", kernel // 2)
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel, padding=padding, bias=False, **options),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )
