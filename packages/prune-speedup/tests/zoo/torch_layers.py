"""torch's own sequence layers, with something before and behind them."""

import torch
from torch import nn


class Recurrent(nn.Module):
    def __init__(self, layer, **options):
        super().__init__()
        self.layer = layer(12, 8, 2, batch_first=True, **options)
        width = (options.get("proj_size") or 8) * (1 + options.get("bidirectional", False))
        self.stem, self.head = nn.Linear(8, 12), nn.Linear(width, 4)

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


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
        self.table, self.memory, self.head = (
            nn.Embedding(50, 32),
            nn.Linear(8, 32),
            nn.Linear(32, 5),
        )
        self.layers = nn.TransformerDecoder(layer, 2)

    def forward(self, x, memory):
        return self.head(self.layers(self.table(x), self.memory(memory)))


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)
        self.layers = nn.Transformer(32, 4, 2, 2, 64)

    def forward(self, x):
        return self.head(self.layers(self.table(x), self.table(x[:4])))


class Cells(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.stem, self.cell, self.head = nn.Linear(8, 12), cell(12, 16), nn.Linear(16, 4)

    def forward(self, x):
        state = None
        for step in self.stem(x).unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def _series():
    return torch.rand(2, 6, 8)


def _tokens():
    return torch.randint(0, 50, (7, 3))


_MODELS = {
    "LSTM": (lambda: Recurrent(nn.LSTM), _series),
    "LSTM-bidirectional": (lambda: Recurrent(nn.LSTM, bidirectional=True), _series),
    "LSTM-projected": (lambda: Recurrent(nn.LSTM, proj_size=6), _series),
    "GRU": (lambda: Recurrent(nn.GRU), _series),
    "GRU-bidirectional": (lambda: Recurrent(nn.GRU, bidirectional=True), _series),
    "RNN": (lambda: Recurrent(nn.RNN), _series),
    "RNN-bidirectional": (lambda: Recurrent(nn.RNN, bidirectional=True), _series),
    "LSTMCell": (lambda: Cells(nn.LSTMCell), _series),
    "GRUCell": (lambda: Cells(nn.GRUCell), _series),
    "RNNCell": (lambda: Cells(nn.RNNCell), _series),
    "TransformerEncoder": (Encoder, _tokens),
    "TransformerEncoder-prenorm": (lambda: Encoder(norm_first=True), _tokens),
    "TransformerEncoder-gelu": (lambda: Encoder(activation="gelu", bias=False), _tokens),
    "TransformerDecoder": (Decoder, lambda: (_tokens(), torch.rand(7, 5, 8))),
    "Transformer": (Translator, _tokens),
}


def names(every=False):
    return list(_MODELS)


def build(name):
    make, inputs = _MODELS[name]
    return make(), inputs()
