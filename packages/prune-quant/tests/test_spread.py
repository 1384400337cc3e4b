import prune_core
import torch
from prune_core.testing import check_pruner

from prune_quant.spread import SpreadMetricsCalculator, SpreadPruner


def test_it_keeps_what_every_pruner_promises():
    check_pruner(SpreadPruner, granularity="channels")


def test_scores_by_hand():
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0], [0.0, 2.0, 0.0, 2.0]])
    scores = SpreadMetricsCalculator().calculate_metrics({"fc": weight})
    assert scores["fc"].tolist() == [0.0, 1.0, 1.0]


def test_it_can_be_had_by_name():
    assert prune_core.get_pruner("prune-quant:spread") is SpreadPruner
