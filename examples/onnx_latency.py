"""Export to ONNX, and measure how much faster it is.

The latency that counts is the one in the runtime that you deploy with. A small residual network is
pruned to half of its FLOPs, both networks are exported, and ONNX Runtime runs them in turn.

It needs prune-filter, `prune-export[onnx]`, onnxruntime and matplotlib, and takes a few seconds.
"""

import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import onnxruntime
import torch
from torch import nn

from prune_core import export, prune, shrink, unwrap

torch.manual_seed(0)


class Block(nn.Module):
    """Two convolutions around which the input is carried."""

    def __init__(self, width):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


model = nn.Sequential(
    *(nn.Conv2d(3, 64, 3, 2), Block(64), nn.Conv2d(64, 128, 3, 2), Block(128)),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
).eval()
x = torch.rand(1, 3, 96, 96)

# %%
# ## Prune, and export before and after
#
# Most kernels like widths that are a multiple of eight or sixteen: `round_to=8`. The weights are
# random here, because latency does not depend on them; yours are trained, and are trained again.

folder = Path(tempfile.mkdtemp())
warnings.simplefilter("ignore")  # torch's exporter has much to say
export(model, folder / "dense.onnx", x)

model, masks = prune(model, "l1", target={"flops": 0.5}, example_inputs=x, round_to=8)
report = shrink(unwrap(model), x, masks)
export(model, folder / "small.onnx", x)
print(report)

# %%
# ## The same outputs


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


dense, small = session(folder / "dense.onnx"), session(folder / "small.onnx")
inputs = {small.get_inputs()[0].name: x.numpy()}
[result] = small.run(None, inputs)
with torch.no_grad():
    torch.testing.assert_close(torch.from_numpy(result), model(x), atol=1e-4, rtol=1e-4)
print("ONNX Runtime computes what torch does.")

# %%
# ## Latency
#
# The two take turns, so that whatever else the machine does meets both. One thread, a batch of one.

times = {"dense": [], "small": []}
for _ in range(60):
    for name, one in (("dense", dense), ("small", small)):
        began = time.perf_counter()
        one.run(None, inputs)
        times[name].append(1000 * (time.perf_counter() - began))
before, after = (median(each) for each in times.values())
print(f"dense: {before:.2f} ms")
print(f"small: {after:.2f} ms")
print(f"{before / after:.1f} times as fast")

plt.boxplot(list(times.values()), orientation="horizontal", tick_labels=list(times), sym="")
plt.xlim(left=0)
plt.xlabel("milliseconds")
plt.ylabel("network")
plt.show()

# %%
# [Deploy a small model](../guides/deploy.md) has other runtimes: OpenVINO, LiteRT, vLLM, llama.cpp.
