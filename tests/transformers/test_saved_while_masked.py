"""What `save_pretrained` writes of a masked model is what the masked model computes with."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

from transformers import BertConfig, BertForSequenceClassification

import prune_core

READ = """
import sys, torch, transformers
for folder in sys.argv[1:]:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = {"input_ids": torch.arange(12).reshape(2, 6)}
    torch.save(model(**inputs).logits, f"{folder}/outputs.pt")
"""


def bert(seed):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_labels=3, initializer_range=0.3,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def test_another_process_reads_the_masked_weights(tmp_path):
    model, inputs = bert(0), {"input_ids": torch.arange(12).reshape(2, 6)}
    with torch.no_grad():
        dense = model(**inputs).logits
        prune_core.prune(model, "level", sparsity=0.7)
        masked = model(**inputs).logits
    assert not torch.allclose(dense, masked, atol=1e-2)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "plain", state_dict=prune_core.masked_state_dict(model))
    folders = [tmp_path / "whole", tmp_path / "plain"]
    done = subprocess.run(
        (sys.executable, "-c", READ, *folders), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for folder in folders:
        read = torch.load(folder / "outputs.pt", weights_only=True)
        torch.testing.assert_close(read, masked, rtol=0, atol=1e-6)

    again = bert(1)
    prune_core.get_pruner("level")(again, [{"op_types": ["default"], "sparsity": 0.7}])
    from safetensors.torch import load_file

    again.load_state_dict(load_file(tmp_path / "whole" / "model.safetensors"))
    prune_core.unwrap(again)
    prune_core.unwrap(model)
    assert all(map(torch.equal, again.parameters(), model.parameters()))
