"""Does it help to merge experts that go into experts that stay, instead of dropping them?

The experts that `expert_activation` would drop are merged into the expert that stays whose row of
the router is most like theirs: the mean of their weights, each weighed by how many tokens it gets.
Once as they are, and once with the hidden channels of an expert put in the order that is most like
the other's. Nothing is trained afterwards. The models are those of `benchmarks/experts.py`:
`python benchmarks/merge_experts.py --text tinyshakespeare.txt --models FOLDER`.
"""

import argparse
import copy
import itertools
from pathlib import Path

import torch
from byte_text import Text
from experts import SHARES, loss_of, spread, trained
from scipy.optimize import linear_sum_assignment

import prune_core
from prune_blocks.experts.criteria import ExpertActivationPruner
from prune_blocks.experts.statistics import gather
from prune_speedup.algorithm import running

PIECES = 64
WAYS = ("dropped", "merged", "merged in order")


def in_order_of(gate_up, down, other_gate_up, other_down):
    """An expert with its hidden channels in the order that is most like another expert's."""
    half = len(gate_up) // 2
    rows, others = (
        torch.cat([first[:half], first[half:], second.T], 1)
        for first, second in ((other_gate_up, other_down), (gate_up, down))
    )
    _, order = linear_sum_assignment(-(rows @ others.T).numpy())
    order = torch.tensor(order)
    return torch.cat([gate_up[:half][order], gate_up[half:][order]]), down[:, order]


@torch.no_grad()
def merge(block, stay, shares, *, ordered):
    """Put the mean of each cluster of experts in the place of the one that stays."""
    rows = torch.nn.functional.normalize(block.gate.weight, dim=1)
    alike = rows @ rows.T
    gate_up, down = (t.clone() for t in (block.experts.gate_up_proj, block.experts.down_proj))
    sums = {to: [gate_up[to] * shares[to], down[to] * shares[to], shares[to]] for to in stay}
    for expert in sorted({*range(len(rows))} - {*stay}):
        to = max(stay, key=lambda each: float(alike[expert, each]))
        one = gate_up[expert], down[expert]
        if ordered:
            one = in_order_of(*one, gate_up[to], down[to])
        weighed = [*(part * shares[expert] for part in one), shares[expert]]
        sums[to] = [known + new for known, new in zip(sums[to], weighed, strict=True)]
    for to, (first, second, share) in sums.items():
        if share > 0:
            block.experts.gate_up_proj[to] = first / share
            block.experts.down_proj[to] = second / share


def losses(dense, text, share, seed):
    """The loss of each way."""
    data = list(itertools.islice(text.batches(8, seed=1000 + seed), 8))
    pruner = ExpertActivationPruner(
        copy.deepcopy(dense), [{"sparsity": share}], data=data, example_inputs=data[0]
    )
    pruner.compress()
    yield loss_of(pruner.model, text, PIECES)
    seen = gather(dense, prune_core.experts(dense, data[0]), running(data))
    for ordered in (False, True):
        model = copy.deepcopy(dense)
        gone = {}
        for name, (count, stay) in pruner.report.experts.items():
            shares = seen[name].routed / seen[name].tokens
            merge(model.get_submodule(name), stay, shares, ordered=ordered)
            gone[name] = sorted({*range(count)} - {*stay})
        prune_core.remove_experts(model, data[0], gone)
        yield loss_of(model, text, PIECES)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path())
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    text = Text(options.text)
    models = [trained(text, options.models, seed, options.steps) for seed in range(options.seeds)]
    for share in SHARES:
        found = [list(losses(model, text, share, seed)) for seed, model in enumerate(models)]
        for way, each in zip(WAYS, zip(*found, strict=True), strict=True):
            print(f"{share:.0%} {way}: {spread(list(each))}", flush=True)


if __name__ == "__main__":
    main()
