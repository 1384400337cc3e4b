"""Files appear whole or not at all, with the same bytes each time, and are not made in memory."""

import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from prune_core import ConfigError
from prune_core.files import replacing, write_safetensors


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"before")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", "of it"])
    assert path.read_bytes() == b"before"
    assert [*tmp_path.iterdir()] == [path]


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(ConfigError, match="is a directory"), replacing(tmp_path):
        pass


def test_the_header_is_in_order_and_the_numbers_are_those(tmp_path):
    tensors = {"w": torch.arange(6.0).reshape(2, 3), "ä": torch.tensor([True, False])}
    notes = {key: f"{key}\n\t\x01 ü" for key in "zyxab"}
    write_safetensors(tmp_path / "one", tensors, notes)
    write_safetensors(tmp_path / "two", tensors, dict(reversed(notes.items())))
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    places = [content.index(f'"{key}":'.encode()) for key in "abxyz"]
    assert places == sorted(places)
    with safe_open(tmp_path / "one", "pt") as file:
        assert file.metadata() == notes
        assert torch.equal(file.get_tensor("w"), tensors["w"])
        assert torch.equal(file.get_tensor("ä"), tensors["ä"])


MEASURED = """
import resource, sys, torch
from prune_core.files import write_safetensors
tensors = {str(n): torch.ones(1024, 1024) for n in range(32)}  # 128 MiB
write_safetensors(f"{sys.argv[1]}/small", {"0": torch.ones(1)})
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
write_safetensors(f"{sys.argv[1]}/large", tensors, {"a": "b"})
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
def test_a_file_is_not_made_in_memory_first(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32
