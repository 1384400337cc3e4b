import os
from pathlib import Path

import pytest

# Before the library is imported: it neither asks its hub nor tells how it is getting on.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture
def big(tmp_path):
    """Write a model in shards, and return the folder."""

    def write(model, shard="60KB"):
        model.save_pretrained(tmp_path / "big", max_shard_size=shard)
        return tmp_path / "big"

    return write


@pytest.fixture
def same():
    """Hold two folders to the same tensors, to the bit."""
    import torch

    from prune_speedup.torch.checkpoint.shards import Shards

    def check(one, other):
        found, expected = dict(Shards(Path(one))), dict(Shards(Path(other)))
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert tensor.dtype == expected[name].dtype
            assert torch.equal(tensor, expected[name]), name

    return check
