"""What the calls of older releases are given: a network, a score and training."""

import torch
from torch import nn

LINEAR = [{"sparsity": 0.5, "op_types": ["Linear"]}]
X = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))


def score(model):
    with torch.no_grad():
        return -float(model(X).square().mean())


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.0)


def fit(model, *_):
    model(X).sum().backward()


class Evaluator:
    """What NNI 2.9 takes for training and scoring."""

    def train(self, model, steps=None, epochs=None):
        fit(model)

    def __call__(self, model):
        return score(model)


def settings(pruner, *names):
    return [getattr(pruner, name) for name in names]
