"""Tokens that leave a vocabulary: what goes with them, what follows, and what is refused."""

import copy
import json

import pytest
import torch
from torch import nn

from prune_core import (
    ConfigError,
    PruneWarning,
    SpeedupError,
    load_pruned,
    remove_tokens,
    vocabularies,
)
from prune_speedup.torch.surgery import save_pruned

IDS = torch.tensor([[1, 5, 9, 3], [4, 11, 2, 7]])


class Tagger(nn.Module):
    """A small language model with a head of its own, and a padding row."""

    def __init__(self, tied=False):
        super().__init__()
        torch.manual_seed(0)
        self.vocab_size = 12
        self.embed = nn.Embedding(12, 6, padding_idx=11)
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 12)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.rnn(self.embed(ids))[0]).reshape(-1, self.vocab_size)


def test_a_table_and_its_head_are_found():
    [found] = vocabularies(Tagger(), IDS)
    assert (found.name, found.size, found.tied) == ("embed", 12, False)
    assert found.tables == (("embed.weight", 0),)
    assert found.heads == (("head.weight", 0),)
    assert found.corrections == (("head.bias", 0),)
    assert vocabularies(Tagger(tied=True), IDS)[0].tied


def test_positions_are_no_tokens():
    class Placed(nn.Module):
        def __init__(self):
            super().__init__()
            self.places, self.words = nn.Embedding(8, 4), nn.Embedding(12, 4)

        def forward(self, ids):
            return self.words(ids) + self.places(torch.arange(ids.shape[1]))

    assert [each.name for each in vocabularies(Placed(), IDS)] == ["words"]


@pytest.mark.parametrize("tied", [False, True])
def test_the_logits_of_the_others_stay(tied):
    model = Tagger(tied)
    with torch.no_grad():
        before = model(IDS)
    weight = model.embed.weight
    report = remove_tokens(model, IDS, [0, 6, 8, 10])
    stay = [1, 2, 3, 4, 5, 7, 9, 11]
    assert report.tokens.old_ids == stay
    assert model.embed.weight is weight
    assert weight.shape == (8, 6)
    assert (model.head.weight is weight) == tied
    assert (model.embed.num_embeddings, model.head.out_features, model.vocab_size) == (8, 8, 8)
    assert model.embed.padding_idx == 7, "the padding is the last token still"
    with torch.no_grad():
        after = model(report.tokens.to_new(IDS))
    torch.testing.assert_close(after, before[:, stay])
    assert report.difference < 1e-6
    assert len(report.verified) > 3


def test_keep_says_which_stay_and_what_the_model_names_stays_too():
    report = remove_tokens(Tagger(), IDS, keep=torch.tensor([9, 1]))
    assert report.tokens.old_ids == [1, 9, 11]
    assert json.loads(report.to_json())["tokens"]["old_ids"] == [1, 9, 11]


def test_tokens_of_the_example_may_go():
    report = remove_tokens(Tagger(), IDS, [5, 9])
    assert report.difference < 1e-6
    with pytest.raises(ConfigError, match="token 5 is no longer in the vocabulary"):
        report.tokens.to_new(IDS)
    new = report.tokens.to_new(IDS, unknown=0)
    assert new.tolist() == [[1, 0, 0, 3], [4, 9, 2, 6]]


def test_labels_are_ids_as_well():
    class Learner(Tagger):
        def forward(self, ids, labels):
            logits = super().forward(ids)
            return nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100), logits

    labels = IDS.clone()
    labels[:, 0] = -100
    model = Learner()
    [found] = vocabularies(model, (IDS, labels))
    assert len(found.inputs) == 2
    report = remove_tokens(model, {"ids": IDS, "labels": labels}, [0, 6, 8, 10])
    assert report.difference < 1e-6, "the loss is that of the model that never chooses them"


def test_a_cap_on_the_logits_keeps_them_away():
    class Capped(Tagger):
        def forward(self, ids):
            return (3 * torch.tanh(super().forward(ids) / 3)).log_softmax(-1)

    assert remove_tokens(Capped(), IDS, [0, 6]).difference < 1e-6


def test_a_forward_that_insists_is_refused_and_the_model_is_whole():
    class Literal(Tagger):
        def forward(self, ids):
            return self.head(self.rnn(self.embed(ids))[0]).reshape(-1, 12)

    model = Literal()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SpeedupError, match=r"does not run on the example.*\[-1, 12\]"):
        remove_tokens(model, IDS, [0])
    assert all(torch.equal(model.state_dict()[name], was) for name, was in before.items())
    assert (model.embed.num_embeddings, model.embed.padding_idx) == (12, 11)


def test_a_model_that_computes_with_ids_is_refused():
    class Counting(Tagger):
        def forward(self, ids):
            return super().forward(ids) + ids.float().mean()

    with pytest.raises(SpeedupError, match="A model that computes with token ids"):
        remove_tokens(Counting(), IDS, [0])


def test_bad_input_says_what_is_wrong():
    model = Tagger()
    for match, call in {
        r"token 11 cannot go: the model names it in embed.padding_idx": {"tokens": [11]},
        r"tokens has 12; the 12 tokens are numbered from 0 to 11": {"tokens": [12]},
        r"Say which tokens go, once": {},
        r"once: remove_tokens\(model": {"tokens": [1], "keep": [2]},
        r"keep is empty": {"keep": []},
        r"tokens is 'abc'": {"tokens": "abc"},
        r"no vocabulary 'embde'; it has 'embed'": {"tokens": [1], "vocabulary": "embde"},
        r"verify_inputs is a tensor": {"tokens": [1], "verify_inputs": IDS},
    }.items():
        with pytest.raises(ConfigError, match=match):
            remove_tokens(model, IDS, **call)
    with pytest.raises(ConfigError, match="has no vocabulary"):
        remove_tokens(nn.Linear(3, 3), torch.randn(2, 3), [1])
    with pytest.warns(PruneWarning, match="nothing was removed"):
        remove_tokens(model, IDS, [])


def test_of_two_vocabularies_one_has_to_be_named():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.kinds = nn.Embedding(12, 4), nn.Embedding(5, 4)

        def forward(self, ids, kinds):
            return self.words(ids) + self.kinds(kinds)

    model, inputs = Pair(), (IDS, IDS % 5)
    with pytest.raises(ConfigError, match="several vocabularies: 'words', 'kinds'"):
        remove_tokens(model, inputs, [0])
    remove_tokens(model, inputs, [0], vocabulary="words")
    assert (model.words.num_embeddings, model.kinds.num_embeddings) == (11, 5)


def test_a_file_brings_it_back_also_after_two_steps(tmp_path):
    model = Tagger()
    first = remove_tokens(model, IDS, [0, 6]).tokens
    second = remove_tokens(model, first.to_new(IDS), [first.new_ids[8]]).tokens
    assert model.embed.padding_idx == 8
    save_pruned(model, tmp_path / "small.safetensors")
    again = load_pruned(Tagger(), tmp_path / "small.safetensors")
    new = second.to_new(first.to_new(IDS))
    with torch.no_grad():
        assert torch.equal(again(new), model(new))
        assert torch.equal(copy.deepcopy(model)(new), model(new))
    assert again.embed.padding_idx == 8


def test_a_file_cannot_renumber_what_is_no_token(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    model = Tagger()
    remove_tokens(model, IDS, [0, 6])
    path = tmp_path / "small.safetensors"
    save_pruned(model, path)
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    surgery = json.loads(header["surgery"])
    surgery["tokens"][0]["attributes"] = [["rnn", "hidden_size"]]
    save_file(tensors, path, header | {"surgery": json.dumps(surgery)})
    dense = Tagger()
    with pytest.raises(SpeedupError, match="'hidden_size' of rnn is no token id"):
        load_pruned(dense, path)
    assert dense.rnn.hidden_size == 6
