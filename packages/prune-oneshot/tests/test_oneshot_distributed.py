"""Processes with data of their own arrive at the same masks and weights, those of all the data."""

import pytest
import torch
from torch import nn
from torch.multiprocessing import start_processes

from prune_oneshot import ALPSPruner, ChannelOBSPruner, FLAPPruner, SparseGPTPruner, WandaPruner

BATCHES = [torch.randn(20, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
HOW = {
    "wanda": (WandaPruner, {}),
    "wanda, block by block, fitted": (
        WandaPruner,
        {"sequential": True, "reconstruct": "least_squares"},
    ),
    "sparsegpt": (SparseGPTPruner, {}),
    "alps": (ALPSPruner, {"sequential": False}),
    "flap": (FLAPPruner, {}),
    "channel_obs": (ChannelOBSPruner, {}),
}


def result(name, batches):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    pruner_class, how = HOW[name]

    def calibrate(model):
        for batch in batches:
            model(batch)

    pruner = pruner_class(
        model, [{"op_names": ["0", "2"], "sparsity": 0.5}], calibrate=calibrate, **how
    )
    pruner.compress()
    return {n: v.clone() for n, v in model.state_dict().items()} | {
        f"{n}!": m["weight"].clone() for n, m in pruner.masks.items()
    }


def process(rank, name, address):
    # Threads of OpenMP do not survive a fork, and who waits for them waits for ever.
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{address}", rank=rank, world_size=2
    )
    # Three batches for one, one for the other.
    mine = BATCHES[:3] if rank == 0 else BATCHES[3:]
    found = result(name, mine)
    every = [None, None]
    torch.distributed.all_gather_object(every, found)
    torch.distributed.destroy_process_group()
    assert all(torch.equal(every[0][key], every[1][key]) for key in every[0])
    if rank == 0:
        torch.save(found, f"{address}.result")


@pytest.mark.parametrize("name", HOW)
def test_two_processes_find_what_one_finds(name, tmp_path):
    address = tmp_path / "meeting"
    # Forked: a process of its own could not import this file, which is in no package.
    start_processes(process, (name, str(address)), 2, start_method="fork")
    found, alone = torch.load(f"{address}.result"), result(name, BATCHES)
    assert found.keys() == alone.keys()
    for key, value in alone.items():
        if key.endswith(("!", "_mask")):
            assert torch.equal(found[key], value), key
        else:
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)
