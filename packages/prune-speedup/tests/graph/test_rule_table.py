"""One row for each operator: what can go before it, and that the rest computes the same.

A row calls the operator with tensors of some shapes, and says how many indices of each of their
axes can be removed. Sizes are read from the tensors, since they will be smaller.
"""

import pytest
import torch
from torch.nn import functional as F

from prune_speedup.testing import check_rule

PLACES = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1]]) > 0
COLUMNS = torch.tensor([[0, 1], [1, 2], [3, 4], [5, 0]])


ELEMENTWISE = {
    "relu": (torch.relu, {(4, 6): (4, 6)}),
    # Not zero where its operand is: what is read there goes as well, or nothing does.
    "exp": (torch.exp, {(4, 6): (4, 6)}),
    "prelu": (F.prelu, [((2, 6, 4), (2, 6, 4)), ((6,), (6,))]),
    "glu": (lambda x: F.glu(x, 1), {(4, 6): (4, 6)}),
    "add": (torch.add, [((4, 6), (4, 6)), ((6,), (6,))]),
    "mul by a column": (torch.mul, [((4, 6), (4, 6)), ((4, 1), (4, 0))]),
    "where": (lambda a, b: torch.where(a > 0, a, b), [((4, 6), (4, 6))] * 2),
    # The mask differs from place to place, and stays.
    "masked_fill": (lambda x: x.masked_fill(torch.eye(4, 6) > 0, 0.0), {(4, 6): (0, 0)}),
    "tril": (torch.tril, {(4, 6): (0, 0)}),
    "bucketize": (lambda x: torch.bucketize(x, torch.arange(3.0)).float(), {(4, 6): (4, 6)}),
    "written through a view": (lambda x: x.clone().t().exp_(), {(4, 6): (4, 6)}),
}
REDUCTIONS = {
    "sum": (lambda x: x.sum(1), {(4, 6): (4, 6)}),
    "nansum": (lambda x: x.nansum(dim=1), {(4, 6): (4, 6)}),
    "norm": (lambda x: x.norm(dim=1), {(4, 6): (4, 6)}),
    # A mean over fewer is another mean; an extreme may be the one that went.
    "mean": (lambda x: x.mean(1), {(4, 6): (4, 0)}),
    "var": (lambda x: x.var(1), {(4, 6): (4, 0)}),
    "amax": (lambda x: x.amax(1), {(4, 6): (4, 0)}),
    "prod": (lambda x: x.prod(1), {(4, 6): (4, 0)}),
    "logsumexp": (lambda x: x.logsumexp(1), {(4, 6): (4, 0)}),
    "softmax": (lambda x: x.softmax(1), {(4, 6): (4, 0)}),
    "sort": (lambda x: x.sort(1).values, {(4, 6): (4, 0)}),
    "topk": (lambda x: x.topk(2, 1).values, {(4, 6): (4, 0)}),
    "cumsum": (lambda x: x.cumsum(1), {(4, 6): (4, 0)}),
    "cummax": (lambda x: x.cummax(1).values, {(4, 6): (4, 0)}),
    "fft": (lambda x: torch.fft.rfft(x, dim=1).abs(), {(4, 6): (4, 0)}),
    "det": (torch.linalg.det, {(3, 4, 4): (3, 0, 0)}),
}
CONTRACTIONS = {
    "mm": (torch.mm, {(4, 6): (4, 6), (6, 3): (6, 3)}),
    "bmm": (torch.bmm, {(4, 5, 6): (4, 5, 6), (4, 6, 3): (4, 6, 3)}),
    "addmm": (torch.addmm, {(3,): (3,), (4, 6): (4, 6), (6, 3): (6, 3)}),
    "linear": (F.linear, {(4, 6): (4, 6), (3, 6): (3, 6), (3,): (3,)}),
    "outer": (torch.outer, {(4,): (4,), (6,): (6,)}),
    "bilinear": (F.bilinear, {(4, 6): (4, 6), (4, 5): (4, 5), (3, 6, 5): (3, 6, 5)}),
    "cdist": (torch.cdist, {(4, 6): (4, 6), (5, 6): (5, 6)}),
    "conv1d": (F.conv1d, {(2, 6, 8): (0, 6, 0), (4, 6, 3): (4, 6, 0)}),
    "conv2d": (F.conv2d, {(2, 6, 5, 5): (0, 6, 0, 0), (4, 6, 3, 3): (4, 6, 0, 0), (4,): (4,)}),
    # Six channels in three groups: a group goes as a whole.
    "conv2d in groups": (
        lambda x, w: F.conv2d(x, w, groups=x.shape[1] // 2),
        {(2, 6, 5, 5): (0, 6, 0, 0), (6, 2, 3, 3): (6, 0, 0, 0)},
    ),
    "conv2d by channel": (
        lambda x, w: F.conv2d(x, w, groups=x.shape[1]),
        {(2, 6, 5, 5): (0, 6, 0, 0), (6, 1, 3, 3): (6, 0, 0, 0)},
    ),
    "conv_transpose2d": (
        F.conv_transpose2d,
        {(2, 6, 5, 5): (0, 6, 0, 0), (6, 4, 3, 3): (6, 4, 0, 0)},
    ),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.4),
        {(2, 3, 4, 6): (0, 3, 4, 6), (2, 3, 5, 6): (0, 3, 0, 6), (2, 3, 5, 4): (0, 3, 0, 4)},
    ),
}
MOVEMENTS = {
    # The axes become one; whole rows of it can go, but no column by itself.
    "flatten": (lambda x: x.flatten(), {(4, 6): (4, 0)}),
    "split an axis": (lambda x: x.reshape(x.shape[0], -1, 3), {(4, 6): (4, 6)}),
    "permute": (lambda x: x.permute(2, 0, 1), {(4, 5, 6): (4, 5, 6)}),
    "repeat": (lambda x: x.repeat(2, 3), {(4, 6): (4, 6)}),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), {(4, 6): (4, 6)}),
    "flip": (lambda x: x.flip(1), {(4, 6): (4, 6)}),
    "cat": (lambda a, b: torch.cat([a, b], 1), {(4, 6): (4, 6), (4, 3): (4, 3)}),
    "stack": (lambda a, b: torch.stack([a, b]), [((4, 6), (4, 6))] * 2),
    "chunk": (lambda x: x.chunk(2, 1), {(4, 6): (4, 6)}),
    "every second": (lambda x: x[:, ::2], {(4, 6): (4, 6)}),
    "one of them": (lambda x: x[:, 2], {(4, 6): (4, 0)}),
    "pad": (lambda x: F.pad(x, (1, 2)), {(4, 6): (4, 6)}),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), {(2, 8, 3, 3): (2, 8, 0, 0)}),
    "diagonal": (lambda x: x.diagonal(0, 0, 1), {(4, 4, 6): (0, 0, 6)}),
    "sliding windows": (lambda x: x.unfold(1, 3, 1), {(4, 6): (4, 0)}),
    "im2col": (lambda x: F.unfold(x, 3), {(2, 6, 5, 5): (2, 6, 0, 0)}),
}
LOOKUPS = {
    "index_select": (lambda x: x.index_select(1, torch.tensor([4, 0])), {(4, 6): (4, 0)}),
    "gather": (lambda x: x.gather(1, COLUMNS), {(4, 6): (0, 0)}),
    "embedding": (lambda w: F.embedding(torch.tensor([0, 3, 3]), w), {(5, 6): (0, 6)}),
    # Rows of images in the places of words: both are as wide as the model.
    "masked_scatter of rows": (
        lambda x, rows: x.masked_scatter(PLACES.unsqueeze(-1).expand_as(x), rows),
        {(2, 4, 6): (0, 0, 6), (5, 6): (0, 6)},
    ),
    "masked_scatter": (
        lambda x, numbers: x.masked_scatter(torch.eye(4, 6) > 0, numbers),
        {(4, 6): (0, 0), (4,): (0,)},
    ),
}
NORMS = {
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b),
        [((4, 6), (4, 6)), ((6,), (6,)), ((6,), (6,))],
    ),
    "group_norm": (
        lambda x, w, b: F.group_norm(x, x.shape[1] // 2, w, b),
        [((2, 6, 4), (0, 6, 0)), ((6,), (6,)), ((6,), (6,))],
    ),
    "instance_norm": (F.instance_norm, {(2, 6, 4): (2, 0, 4)}),
}
WINDOWS = {
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), {(2, 6, 4, 4): (2, 6, 0, 0)}),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), {(2, 6, 4, 4): (2, 6, 0, 0)}),
    "adaptive_avg_pool2d": (
        lambda x: F.adaptive_avg_pool2d(x, 1),
        {(2, 6, 4, 4): (2, 6, 0, 0)},
    ),
    "adaptive_max_pool2d": (
        lambda x: F.adaptive_max_pool2d(x, 1),
        {(2, 6, 4, 4): (2, 6, 0, 0)},
    ),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), {(2, 6, 4, 4): (2, 6, 0, 0)}),
    "bilinear upsampling": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        {(2, 6, 4, 4): (2, 6, 0, 0)},
    ),
}
ROWS = [
    pytest.param(call, list(axes.items() if isinstance(axes, dict) else axes), id=name)
    for table in (ELEMENTWISE, REDUCTIONS, CONTRACTIONS, MOVEMENTS, LOOKUPS, NORMS, WINDOWS)
    for name, (call, axes) in table.items()
]


@pytest.mark.parametrize(("call", "axes"), ROWS)
def test_what_can_go(call, axes):
    check_rule(call, *(shape for shape, _ in axes), expected=[counts for _, counts in axes])
