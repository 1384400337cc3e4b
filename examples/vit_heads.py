"""Remove attention heads from a vision transformer (ViT).

A small ViT learns to read handwritten digits. Then half of its heads and half of its hidden units
are removed. It is trained a little more, and saved in the form that `from_pretrained` reads.

It needs prune-oneshot, transformers, scikit-learn and matplotlib, and takes less than a minute.
"""

import copy
import tempfile

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification

import prune_core

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
labels = torch.tensor(labels)

config = ViTConfig(
    image_size=8,
    patch_size=2,
    num_channels=1,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=6,
    intermediate_size=96,
    num_labels=10,
)
dense = ViTForImageClassification(config)

# %%
# Train it as you would train any model.


def train(model, epochs, rate):
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(1300).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[part]).logits, labels[part]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model):
    return (model(images[1300:]).logits.argmax(1) == labels[1300:]).float().mean().item()


train(dense, 20, 2e-3)
print(f"accuracy: {accuracy(dense):.0%}")

# %%
# ## Which sparsity?
#
# Try some. `data` are batches without labels: they show what the model computes, so that the
# heads and units that do least go, and the others make up for them.

batches = [{"pixel_values": part} for part in images[:512].split(64)]
inputs = {"pixel_values": images[:2]}
sparsities = [0.17, 0.34, 0.5, 0.67, 0.84]
for name in ("channel_obs", "l1"):
    found = []
    for sparsity in sparsities:
        model, _ = prune_core.prune(
            *(copy.deepcopy(dense), name),
            sparsity=sparsity,
            example_inputs=inputs,
            data=batches if name == "channel_obs" else None,
        )
        found.append(accuracy(model))
    plt.plot(sparsities, found, marker="o", label=name)
    print(f"{name:12}", "  ".join(f"{value:.0%}" for value in found))
plt.xlabel("share of heads and hidden units removed")
plt.ylabel("accuracy")
plt.legend()
plt.show()

# %%
# ## Make it small
#
# Half of the heads go from each layer. `shrink` runs the masked and the small model beside each
# other, and raises an error if they differ.

small, masks = prune_core.prune(
    copy.deepcopy(dense), sparsity=0.5, data=batches, example_inputs=inputs
)
report = prune_core.shrink(prune_core.unwrap(small), inputs, masks)
print(report)
print()
for change in report.changes:
    if "layers.0." in change.name and change.name.endswith("weight"):
        print(f"{change.name:45} {change.before} -> {change.after}")

# %%
# ## Fine-tune and save

print(f"pruned: {accuracy(small):.0%}")
train(small, 5, 1e-3)
print(f"trained again: {accuracy(small):.0%}")

# %%
# The config has followed, so that transformers itself loads the small model. Where no config can
# describe what is left, `report.config.missing` says why.

print(report.config.values)
with tempfile.TemporaryDirectory() as folder:
    small.save_pretrained(folder)
    again = ViTForImageClassification.from_pretrained(folder)
print(f"loaded: {accuracy(again.eval()):.0%}")
