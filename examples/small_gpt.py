"""Prune a small GPT: calibration, single weights and channels.

A decoder with four layers learns to spell English, byte by byte, from Python's own help texts.
Then it loses weights (which makes nothing smaller) or hidden channels (which does), and you see
what each algorithm costs.

It needs prune-filter, prune-oneshot, transformers and matplotlib, and takes less than a minute.
"""

import copy
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import prune_core

torch.manual_seed(0)
text = torch.frombuffer(bytearray("".join(topics.values()).encode()), dtype=torch.uint8).long()
text, held_out = text[:-16384], text[-16384:].view(64, 256)

config = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=8,
    use_cache=False,
)
dense = LlamaForCausalLM(config)


def batch(size=16, length=96):
    starts = torch.randint(len(text) - length, (size,)).tolist()
    return torch.stack([text[start : start + length] for start in starts])


def train(model, steps, rate):
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    model.train()
    for _ in range(steps):
        inputs = batch()
        optimizer.zero_grad()
        model(input_ids=inputs, labels=inputs).loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def loss(model):
    return model(input_ids=held_out, labels=held_out).loss.item()


train(dense, 250, 8e-3)
print(f"loss of the whole model: {loss(dense):.2f} nats per byte; by chance it is 5.55")

# %%
# ## Single weights
#
# Half and more of the weights of all linear layers go. `level` looks at the weights alone.
# `wanda` and `sparsegpt` look at what comes in, and `sparsegpt` changes the weights that stay,
# too. That takes a few batches of text, and no training.

data = [{"input_ids": batch(8)} for _ in range(4)]
sparsities = [0.4, 0.5, 0.6, 0.7]
for name in ("level", "wanda", "sparsegpt"):
    found = []
    for sparsity in sparsities:
        model, _ = prune_core.prune(
            *(copy.deepcopy(dense), name),
            sparsity=sparsity,
            exclude="lm_head",
            data=None if name == "level" else data,
        )
        found.append(loss(model))
    plt.plot(sparsities, found, marker="o", label=name)
    print(f"{name:10}", "  ".join(f"{value:.2f}" for value in found))
plt.axhline(loss(dense), linestyle=":", color="gray", label="whole model")
plt.xlabel("share of the weights that are zero")
plt.ylabel("nats per byte")
plt.legend()
plt.show()

# %%
# ## Channels
#
# Zeros are stored like other numbers, so the model is as large as before. To make it smaller,
# remove whole heads and hidden channels. Without an algorithm's name, `prune` takes
# `channel_obs`, which makes the channels that stay compensate. `uniform=True` keeps all layers
# equally wide, as servers of language models want it.

inputs = data[0]
small, masks = prune_core.prune(
    copy.deepcopy(dense),
    sparsity=0.5,
    data=data,
    example_inputs=inputs,
    exclude="lm_head",
    uniform=True,
)
report = prune_core.shrink(prune_core.unwrap(small), inputs, masks)
print(report.config.values)
before, after = report.parameters
print(f"parameters: {before:,} before, {after:,} after")
print(f"loss: {loss(small):.2f}")

# %%
# A little training, with the whole model as the teacher, brings back a part of what that cost;
# longer training brings back more.

prune_core.recover(small, [{"input_ids": batch()} for _ in range(60)], teacher=dense, steps=60)
print(f"loss: {loss(small.eval()):.2f}")

# %%
# Save it with `small.save_pretrained(folder)`. More is in [Prune
# transformers](../guides/transformers.md), and which algorithm to take in [Choose an
# algorithm](../choosing.md).
