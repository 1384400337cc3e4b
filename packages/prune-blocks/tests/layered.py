"""Models whose layers do something that can be said in advance."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Turn(nn.Module):
    """Turns vectors of two numbers by an angle: `x + (R − 1) x`."""

    def __init__(self, degrees):
        super().__init__()
        angle = math.radians(degrees)
        self.branch = nn.Linear(2, 2, bias=False)
        turned = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        self.branch.weight.data = turned - torch.eye(2)

    def forward(self, x):
        return x + self.branch(x)


class Turns(nn.Module):
    """Turns by given angles, one layer for each; its loss is how far it is from the input."""

    def __init__(self, *degrees):
        super().__init__()
        self.layers = nn.ModuleList(Turn(each) for each in degrees)

    def forward(self, x, attention_mask=None, loss=False):
        before = x
        for layer in self.layers:
            x = layer(x)
        return (x - before).square().mean() if loss else x


class Layer(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), nn.Linear(width, width)
        self.norm2, self.fc1 = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm(x)).softmax(-1)
        return x + self.fc2(F.relu(self.fc1(self.norm2(x))))


class Stack(nn.Module):
    def __init__(self, layers=4):
        super().__init__()
        self.layers, self.head = nn.ModuleList(Layer() for _ in range(layers)), nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class TwoStacks(nn.Module):
    """An encoder and a decoder, so to speak."""

    def __init__(self):
        super().__init__()
        self.first = nn.ModuleList(Layer() for _ in range(2))
        self.second = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x):
        for layer in (*self.first, *self.second):
            x = layer(x)
        return x
