"""Tokens leave the vocabularies of language models: configs, files and `generate` follow."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import prune_core
from prune_core import load_pruned, remove_tokens, used_tokens

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "vocabulary.md"
FENCED = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)
SIZE = 60
GONE = [token for token in range(5, 50) if token % 3 == 0]
COMMON = {
    "vocab_size": SIZE,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
PAIR = {
    "vocab_size": SIZE,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
FAMILIES = {
    "LlamaForCausalLM": COMMON | {"eos_token_id": [2, 58]},
    "Gemma2ForCausalLM": COMMON | {"head_dim": 8, "num_key_value_heads": 2},
    "GPT2LMHeadModel": {
        "vocab_size": SIZE, "n_embd": 16, "n_layer": 1, "n_head": 2,
        "bos_token_id": 59, "eos_token_id": 59,
    },
    "T5ForConditionalGeneration": {
        "vocab_size": SIZE, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
        "decoder_start_token_id": 0,
    },
    "BartForConditionalGeneration": PAIR,
    "MarianMTModel": PAIR | {
        "pad_token_id": 59, "decoder_start_token_id": 59, "eos_token_id": 0,
        "forced_eos_token_id": 0,
    },
    "BertForMaskedLM": COMMON,
    "RobertaForMaskedLM": COMMON,
    "BertModel": COMMON,
}  # fmt: skip


def built(name):
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    return kind(kind.config_class(**FAMILIES[name])).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_others_are_what_they_were(name, tmp_path):
    model = built(name)
    dense = copy.deepcopy(model)
    stay = torch.tensor(sorted({*range(SIZE)} - {*GONE}))
    old = {"input_ids": stay[torch.arange(14).reshape(2, 7) % len(stay)]}
    if model.config.is_encoder_decoder:
        old["decoder_input_ids"] = old["input_ids"][:, :4]
    report = remove_tokens(model, old, GONE)
    new = {key: report.tokens.to_new(ids) for key, ids in old.items()}
    with torch.no_grad():
        expected, found = dense(**old)[0], model(**new)[0]
        if found.shape != expected.shape:
            expected = expected[..., stay]
        torch.testing.assert_close(found, expected)
        model.save_pretrained(tmp_path / "folder")
        report.save(tmp_path / "small.safetensors")
        again = load_pruned(copy.deepcopy(dense), tmp_path / "small.safetensors")
        assert torch.equal(again(**new)[0], found)
        assert torch.equal(type(model).from_pretrained(tmp_path / "folder")(**new)[0], found)
    assert model.config.vocab_size == again.config.vocab_size == len(stay)
    named = {key: value for key, value in dense.config.to_dict().items() if "token_id" in key}
    for key, value in named.items():
        ids = value if isinstance(value, list) else [value]
        wanted = [report.tokens.new_ids.get(each, each) for each in ids]
        for config in (model.config, again.config):
            now = getattr(config, key)
            assert (now if isinstance(value, list) else [now]) == wanted
    if model.can_generate() and name != "BertModel":
        asked = {"max_new_tokens": 6, "do_sample": False}
        start = {"input_ids": old["input_ids"], "attention_mask": torch.ones(2, 7)}
        whole = dense.generate(**start, **asked, suppress_tokens=GONE)
        start["input_ids"] = new["input_ids"]
        for small in (model, again):
            assert torch.equal(small.generate(**start, **asked), report.tokens.to_new(whole))


def test_what_a_generation_config_says_of_tokens_follows():
    model = built("GPT2LMHeadModel")
    said = model.generation_config
    said.suppress_tokens, said.bad_words_ids = [5, 6, 7], [[5, 7], [6, 8], [10]]
    said.sequence_bias = [[[5, 7], 1.5], [[6], 2.0]]
    said.lang_to_id = {"<|de|>": 10, "<|fr|>": 12}
    before = copy.deepcopy(said)
    tokens = remove_tokens(model, {"input_ids": torch.arange(5)[None]}, GONE).tokens
    now = model.generation_config
    assert now.suppress_tokens == tokens.to_new([5, 7])
    assert now.bad_words_ids == [tokens.to_new([5, 7]), tokens.to_new([10])]
    assert now.sequence_bias == [[tokens.to_new([5, 7]), 1.5]]
    assert now.lang_to_id == {"<|de|>": tokens.new_ids[10]}
    assert now.eos_token_id == tokens.new_ids[59]
    assert said.to_dict() == before.to_dict(), "the config may belong to others too"


def test_two_tables_of_one_vocabulary_and_a_token_that_stands_for_an_image():
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    config = LlavaConfig(
        text_config=LlamaConfig(**COMMON),
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            image_size=8, patch_size=4,
        ),
        image_token_id=59,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, 59, 59, 59, 59, 4, 7]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 8, 8)}
    tokens = remove_tokens(model, inputs, GONE).tokens
    assert model.config.image_token_id == tokens.new_ids[59]
    assert model.config.text_config.vocab_size == len(tokens)


def tokenizer(kind):
    words = ["low", "lower", "lowest", "new", "newer", "newest", "wide", "wider", "widest"]
    texts = [f"{a} {b}" for a in words for b in words]
    if kind == "BPE":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<pad>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        named = {"pad_token": "<pad>"}
    elif kind == "Unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
        )
        named = {"unk_token": "<unk>"}
    else:
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=60, special_tokens=["[UNK]", "[CLS]"], show_progress=False
        )
        named = {"unk_token": "[UNK]", "cls_token": "[CLS]"}
    made.train_from_iterator(texts, trainer)
    if kind == "WordPiece":
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", special_tokens=[("[CLS]", 1)]
        )
    whole = PreTrainedTokenizerFast(tokenizer_object=made, **named)
    whole.add_tokens(["<extra>"])
    return whole, texts


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordPiece"])
def test_a_smaller_tokenizer_makes_the_same_tokens_of_the_same_texts(kind, tmp_path):
    whole, texts = tokenizer(kind)
    few = texts[:4]
    keep = used_tokens(whole, few)
    assert len(keep) < len(whole)
    model = built("LlamaForCausalLM")
    model.resize_token_embeddings(len(whole))
    tokens = remove_tokens(model, {"input_ids": torch.tensor([keep[:9]])}, keep=keep).tokens
    small = tokens.tokenizer(whole)
    assert len(small) == len(tokens)
    for text in (*few, "low <extra>"):
        assert small(text)["input_ids"] == tokens.to_new(whole(text)["input_ids"])
    assert small.decode(small(few[0])["input_ids"]) == whole.decode(whole(few[0])["input_ids"])
    spelled = small("widest")["input_ids"]
    assert small.decode(spelled, skip_special_tokens=True).replace(" ", "") == "widest"
    small.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert all(again(text)["input_ids"] == small(text)["input_ids"] for text in texts)


def test_a_tokenizer_refuses_to_lose_what_it_needs():
    whole, _ = tokenizer("WordPiece")
    model = built("LlamaForCausalLM")
    tokens = remove_tokens(model, {"input_ids": torch.tensor([[3, 4]])}, [0]).tokens
    with pytest.raises(prune_core.SpeedupError, match="stands for what it does not know"):
        tokens.tokenizer(whole)
    with pytest.raises(prune_core.ConfigError, match="only tokenizers of transformers"):
        tokens.tokenizer("no tokenizer")
    with pytest.raises(prune_core.ConfigError, match="texts is 'one text'"):
        used_tokens(whole, "one text")


def test_the_page_runs_from_top_to_bottom(tmp_path):
    pytest.importorskip("prune_blocks", reason="needs prune-blocks")
    code = "\n".join(FENCED.findall(PAGE.read_text("utf-8")))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    promised = re.findall(r"^# (.*)$", code, re.MULTILINE)
    assert promised
    assert done.stdout.splitlines()[-len(promised) :] == promised
