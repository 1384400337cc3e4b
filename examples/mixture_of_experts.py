"""Remove experts from a mixture (MoE).

Most of the parameters of a mixture of experts are in the experts, and the router does not use all
of them alike. A small Mixtral learns to spell English from Python's own help texts. Then experts
are removed, those first that matter least.

It needs prune-blocks, transformers and matplotlib, and takes less than a minute.
"""

import copy
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import torch
from transformers import MixtralConfig, MixtralForCausalLM

import prune_core

torch.manual_seed(0)
text = torch.frombuffer(bytearray("".join(topics.values()).encode()), dtype=torch.uint8).long()
text, held_out = text[:-16384], text[-16384:].view(64, 256)

config = MixtralConfig(
    vocab_size=256,
    hidden_size=48,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    num_local_experts=8,
    num_experts_per_tok=2,
    router_aux_loss_coef=0.01,
    use_cache=False,
)
dense = MixtralForCausalLM(config)


def batch(size=16, length=96):
    starts = torch.randint(len(text) - length, (size,)).tolist()
    return torch.stack([text[start : start + length] for start in starts])


optimizer = torch.optim.AdamW(dense.parameters(), 5e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, 250)
for _ in range(250):
    inputs = batch()
    optimizer.zero_grad()
    dense(input_ids=inputs, labels=inputs, output_router_logits=True).loss.backward()
    optimizer.step()
    schedule.step()
dense.eval()


@torch.no_grad()
def loss(model):
    return model(input_ids=held_out, labels=held_out).loss.item()


print(f"loss of the whole model: {loss(dense):.2f} nats per byte")

# %%
# ## The mixtures of a model

data = [{"input_ids": batch(8)} for _ in range(4)]
for mixture in prune_core.experts(dense, data[0]):
    print(f"{mixture.name}: {mixture.experts} experts, {mixture.top_k} for each token")

# %%
# ## Which experts?
#
# `reap` scores an expert by what it returns and by the weight that the router gives it;
# `expert_frequency` by how many tokens are sent to it. An expert that is removed is gone at once:
# there are no masks, and `prune` returns the smaller model and a report.

shares = [0.125, 0.25, 0.375, 0.5, 0.625]
for name in ("reap", "expert_frequency"):
    found = []
    for share in shares:
        model, report = prune_core.prune(copy.deepcopy(dense), name, sparsity=share, data=data)
        found.append(loss(model))
    plt.plot(shares, found, marker="o", label=name)
    print(f"{name:17}", "  ".join(f"{value:.2f}" for value in found))
plt.axhline(loss(dense), linestyle=":", color="gray", label="whole model")
plt.xlabel("share of the experts removed")
plt.ylabel("nats per byte")
plt.legend()
plt.show()

# %%
# ## The small model
#
# It was compared with the whole one, in which the router may not choose the experts that are
# gone. The config has followed, so `save_pretrained` and `from_pretrained` work as before.

small, report = prune_core.prune(copy.deepcopy(dense), "reap", sparsity=0.25, data=data)
print(report)

# %%
# [Prune a mixture of experts](../guides/experts.md) has more: scores over all layers together,
# budgets, and measured losses.
