"""A small lottery in a process of its own, which the tests kill."""

import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from prune_core import BasicPruner
from prune_core.files import replacing
from prune_lottery import LotteryTicket, run_control
from prune_toolkit import NormalSparsityAllocator, NormMetricsCalculator, WeightDataCollector


class Level(BasicPruner):
    def reset_tools(self):
        self.data_collector = WeightDataCollector(self)
        self.metrics_calculator = NormMetricsCalculator()
        self.sparsity_allocator = NormalSparsityAllocator(self)


def main(checkpoint, result):
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    images, labels = torch.randn(64, 20), torch.randint(0, 3, (64,))
    model = nn.Sequential(
        nn.Linear(20, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Dropout(0.1), nn.Linear(60, 3)
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6], 0.3)

    def train(model, this_round):
        model.train()
        losses = []
        for _ in this_round.steps(8):
            chosen = torch.randint(0, 64, (16,))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(float(loss.detach()))
            time.sleep(0.002)  # leaves time to be killed in
        return losses

    def accuracy(model):
        model.eval()
        return (model(images).argmax(1) == labels).float().mean()

    lottery = LotteryTicket(
        model,
        [{"op_types": ["Linear"], "sparsity": 0.9}],
        rounds=5,
        rewind="early:2",
        pruning_algorithm=Level,
        optimizer=optimizer,
        lr_scheduler=scheduler,
        rewind_random=False,
        checkpoint=checkpoint,
    )
    lottery.run(train=train, evaluate=accuracy)
    run_control(lottery, "reinit", train=train, evaluate=accuracy, rounds=[2, 5])
    state = lottery.state_dict() | {"now": lottery.training.take()}
    with replacing(result) as file:
        torch.save(state, file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*FILES)  # noqa: F821 - whoever runs this file sets it
