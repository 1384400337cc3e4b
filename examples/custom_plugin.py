"""Write a pruning algorithm of your own, as a plugin.

A criterion says which channels matter least. Here one is written in a dozen lines, registered under
a name, checked against what every pruner promises, and compared with those that come with prune.

It needs prune-filter, scikit-learn and matplotlib, and takes a few seconds.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from prune_core import ChannelPruner, Reference, hookimpl, prune
from prune_core.registry import entries, registered
from prune_core.testing import check_pruner
from prune_toolkit import MetricsCalculator, WeightDataCollector

# %%
# ## The criterion
#
# `SpreadPruner` removes the channels whose weights differ least from each other. It is no published
# method: it stands for yours. A pruner needs data and a score. Masks, modes, biases and errors come
# from `ChannelPruner`. The channels with the smallest scores go.


class SpreadMetricsCalculator(MetricsCalculator):
    """Scores a channel by the standard deviation of its weights."""

    def calculate_metrics(self, data):
        return {name: w.flatten(1).std(1, correction=0) for name, w in data.items()}


class SpreadPruner(ChannelPruner):
    """Prunes the output channels whose weights differ least from each other."""

    def collector(self):
        return WeightDataCollector(self, channels=True)

    def calculator(self):
        return SpreadMetricsCalculator()


# %%
# Does it do what every pruner promises? `check_pruner` runs eleven checks on small models, and
# raises an error that lists all that fail.

check_pruner(SpreadPruner, granularity="channels")

# %%
# ## The name
#
# A plugin is an object with hooks. In a package, that object is the module which the entry point
# names, and whoever installs the package can use the name. In a script, `registered` stands in for
# the installation.


class Hooks:
    @hookimpl
    def prune_register_pruners(self):
        return {"spread": Reference("__main__:SpreadPruner", "Prunes quiet channels.", "channels")}


plugin = registered(Hooks(), "my-plugin")
plugin.__enter__()
print([entry.qualified_name for entry in entries("pruner") if entry.name == "spread"])

# %%
# ## How good is it?
#
# Train a small network on handwritten digits.

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
labels = torch.tensor(labels)


def network():
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, 10)),
    )


dense = network()
optimizer = torch.optim.Adam(dense.parameters(), 2e-3)
for _ in range(8):
    for part in torch.randperm(1300).split(64):
        optimizer.zero_grad()
        F.cross_entropy(dense(images[part]), labels[part]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model):
    return (model(images[1300:]).argmax(1) == labels[1300:]).float().mean().item()


print(f"The whole network is right for {accuracy(dense):.0%} of the images.")

# %%
# `prune` finds your algorithm by its name. Nothing is trained after pruning.

sparsities = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
for name in ("spread", "l1", "fpgm", "random"):
    found = []
    for sparsity in sparsities:
        model = network()
        model.load_state_dict(dense.state_dict())
        model, _ = prune(model, name, sparsity=sparsity, example_inputs=images[:2])
        found.append(accuracy(model))
    plt.plot(sparsities, found, marker="o", label=name)
    print(f"{name:8}", "  ".join(f"{value:.0%}" for value in found))
plt.xlabel("share of the channels removed")
plt.ylabel("accuracy")
plt.legend()
plt.show()

# %%
# `prune new-plugin my-plugin` writes the package around such a class, with its tests:
# [Write a plugin](../plugins/write-a-plugin.md).

plugin.__exit__(None, None, None)
