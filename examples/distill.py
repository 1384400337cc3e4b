"""Train a pruned network with its teacher (distillation).

A network for handwritten digits is pruned to a fifth of its FLOPs. Labels are scarce: 100 images
have some. The others have none, and still teach, because the network before pruning says what it
thinks of them.

It needs prune-filter, prune-recover and scikit-learn, and takes half a minute.
"""

from copy import deepcopy

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import prune_core

LABELLED, STEPS = 100, 400

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
labels = torch.tensor(labels)
learn, test = train_test_split(range(len(labels)), test_size=450, random_state=0, stratify=labels)


def pairs(images, labels):
    return list(zip(images.split(64), labels.split(64), strict=True))


def accuracy(model):
    return (model(images[test]).argmax(1) == labels[test]).float().mean().item()


# %%
# ## The teacher
#
# A network that was trained with all labels. Without a teacher, `recover` is a training like any
# other.

dense = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(512, 10)),
)
prune_core.recover(dense, pairs(images[learn], labels[learn]), epochs=8)
print(f"{'dense':28} {accuracy(dense.eval()):6.1%}")

# %%
# ## The student
#
# The same network with a fifth of its FLOPs. It has forgotten much.

small, example = deepcopy(dense), images[:2]
_, masks = prune_core.prune(small, "l1", target={"flops": 0.2}, example_inputs=example)
report = prune_core.shrink(prune_core.unwrap(small), example, masks)
print(f"{'a fifth of its FLOPs':28} {accuracy(small):6.1%}")

# %%
# ## With few labels, and with a teacher
#
# The same number of steps: once with the 100 labels alone, once with the teacher and all images,
# none of which needs a label.

few = pairs(images[learn][:LABELLED], labels[learn][:LABELLED])
alone = prune_core.recover(deepcopy(small), few, steps=STEPS, evaluate=accuracy)
print(f"{f'trained with {LABELLED} labels':28} {alone.quality_after:6.1%}")

unlabelled = list(images[learn].split(64))
taught = prune_core.recover(small, unlabelled, teacher=dense, steps=STEPS, evaluate=accuracy)
print(f"{'trained with its teacher':28} {taught.quality_after:6.1%}")

# %%
# [Distillation](../guides/recover.md) says which losses there are, and how to use your own loop.
