# ruff: noqa: E501 - a row of the table of models stays one row
"""transformers architectures with random weights, built from small configurations.

A size that a configuration knows by one of the customary names is set to a small one; what an
architecture wants otherwise stands beside its name.
"""

import inspect
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

for _name in ("nms", "qnms"):
    # torchvision beside a CPU build of torch lacks these, and fails to import without them.
    if not hasattr(torch.ops.torchvision, _name):
        torch.library.define(
            f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )

import transformers  # noqa: E402
from transformers import CONFIG_MAPPING  # noqa: E402

transformers.logging.set_verbosity_error()

_SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "d_model": 64,
    "n_embd": 64,
    "dim": 64,
    "embed_dim": 64,
    "emb_dim": 64,
    "embedding_size": 64,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 8,
    "num_heads": 8,
    "n_head": 8,
    "n_heads": 8,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "intermediate_size": 256,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "ffn_dim": 256,
    "d_ff": 256,
    "d_kv": 8,
    "n_inner": 256,
    "hidden_dim": 256,
    "moe_intermediate_size": 48,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "image_size": 64,
    "patch_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "num_labels": 5,
}

_TEXT = "SequenceClassification", "MaskedLM", "CausalLM", "Seq2SeqLM"

_MODELS = {
    # encoders
    "bert": ("SequenceClassification", {}),
    "roberta": ("MaskedLM", {}),
    "xlm-roberta": ("SequenceClassification", {}),
    "electra": ("MaskedLM", {}),
    "albert": ("MaskedLM", {}),
    "distilbert": ("SequenceClassification", {}),
    "mobilebert": ("SequenceClassification", {"intra_bottleneck_size": 32, "true_hidden_size": 32}),
    "squeezebert": ("SequenceClassification", {}),
    "mpnet": ("SequenceClassification", {}),
    "convbert": ("SequenceClassification", {}),
    "deberta": ("SequenceClassification", {}),
    "deberta-v2": ("SequenceClassification", {}),
    "modernbert": ("MaskedLM", {}),
    "roformer": ("SequenceClassification", {}),
    "nystromformer": ("SequenceClassification", {}),
    "fnet": ("SequenceClassification", {}),
    "funnel": ("SequenceClassification", {"d_inner": 128, "d_head": 8, "block_sizes": [1, 1]}),
    "xlnet": ("SequenceClassification", {"d_inner": 128, "d_head": 8}),
    "layoutlm": ("SequenceClassification", {}),
    "longformer": ("SequenceClassification", {"attention_window": 4}),
    "big_bird": ("SequenceClassification", {"attention_type": "original_full"}),
    "canine": ("SequenceClassification", {}),
    "esm": ("MaskedLM", {}),
    "ibert": ("SequenceClassification", {}),
    "rembert": ("SequenceClassification", {}),
    "splinter": ("QuestionAnswering", {}),
    # decoders
    "gpt2": ("CausalLM", {}),
    "gpt_neo": ("CausalLM", {"attention_types": [[["global", "local"], 1]]}),
    "gpt_neox": ("CausalLM", {}),
    "gptj": ("CausalLM", {"rotary_dim": 8}),
    "gpt_bigcode": ("CausalLM", {}),
    "bloom": ("CausalLM", {}),
    "opt": ("CausalLM", {"word_embed_proj_dim": 64}),
    "codegen": ("CausalLM", {"rotary_dim": 8}),
    "openai-gpt": ("CausalLM", {}),
    "ctrl": ("CausalLM", {"dff": 128}),
    "xglm": ("CausalLM", {"attention_heads": 8}),
    "biogpt": ("CausalLM", {}),
    "llama": ("CausalLM", {}),
    "mistral": ("CausalLM", {}),
    "qwen2": ("CausalLM", {}),
    "qwen3": ("CausalLM", {}),
    "gemma": ("CausalLM", {}),
    "gemma2": ("CausalLM", {}),
    "gemma3_text": ("CausalLM", {}),
    "phi": ("CausalLM", {}),
    "phi3": ("CausalLM", {}),
    "falcon": ("CausalLM", {"new_decoder_architecture": True, "num_kv_heads": 4}),
    "stablelm": ("CausalLM", {}),
    "starcoder2": ("CausalLM", {}),
    "persimmon": ("CausalLM", {}),
    "cohere": ("CausalLM", {}),
    "olmo": ("CausalLM", {}),
    "olmo2": ("CausalLM", {}),
    "glm": ("CausalLM", {}),
    "granite": ("CausalLM", {}),
    "smollm3": ("CausalLM", {}),
    "nemotron": ("CausalLM", {}),
    "exaone4": ("CausalLM", {}),
    "helium": ("CausalLM", {"head_dim": 8}),
    # mixtures of experts, latent attention, state spaces
    "mixtral": ("CausalLM", {}),
    "qwen2_moe": ("CausalLM", {"shared_expert_intermediate_size": 64}),
    "qwen3_moe": ("CausalLM", {}),
    "olmoe": ("CausalLM", {}),
    "granitemoe": ("CausalLM", {}),
    "phimoe": ("CausalLM", {}),
    "gpt_oss": ("CausalLM", {}),
    "deepseek_v2": (
        "CausalLM",
        {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
        | {"v_head_dim": 16, "n_group": 1, "topk_group": 1, "num_key_value_heads": 8}
        | {"n_shared_experts": 1, "head_dim": 8},
    ),
    "deepseek_v3": (
        "CausalLM",
        {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
        | {"v_head_dim": 16, "n_group": 1, "topk_group": 1, "num_key_value_heads": 8}
        | {"n_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 8},
    ),
    "mamba": ("CausalLM", {"state_size": 8, "time_step_rank": 8}),
    "falcon_mamba": ("CausalLM", {"state_size": 8, "time_step_rank": 8}),
    "mamba2": ("CausalLM", {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1}),
    "recurrent_gemma": ("CausalLM", {"lru_width": 64, "attention_window_size": 8, "num_hidden_layers": 3}),
    "rwkv": ("CausalLM", {"attention_hidden_size": 64, "context_length": 16}),
    # encoder and decoder
    "t5": ("Seq2SeqLM", {"num_heads": 8}),
    "mt5": ("Seq2SeqLM", {"num_heads": 8}),
    "bart": ("Seq2SeqLM", {}),
    "mbart": ("Seq2SeqLM", {}),
    "pegasus": ("Seq2SeqLM", {}),
    "marian": ("Seq2SeqLM", {}),
    "m2m_100": ("Seq2SeqLM", {}),
    "blenderbot": ("Seq2SeqLM", {}),
    "prophetnet": (
        "Seq2SeqLM",
        {"num_encoder_layers": 2, "num_encoder_attention_heads": 8, "num_decoder_attention_heads": 8},
    ),
    "led": (
        "Seq2SeqLM",
        {"attention_window": 4, "max_encoder_position_embeddings": 64}
        | {"max_decoder_position_embeddings": 64},
    ),
    "longt5": ("Seq2SeqLM", {"num_heads": 8}),
    "switch_transformers": ("Seq2SeqLM", {"num_heads": 8, "num_sparse_encoder_layers": 1}),
    "umt5": ("Seq2SeqLM", {"num_heads": 8}),
    "nllb-moe": ("Seq2SeqLM", {"encoder_sparse_step": 2, "decoder_sparse_step": 2}),
    # vision
    "vit": ("ImageClassification", {}),
    "deit": ("ImageClassification", {}),
    "beit": ("ImageClassification", {}),
    "dinov2": ("ImageClassification", {}),
    "swin": ("ImageClassification", {"embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 2, "patch_size": 4}),
    "swinv2": ("ImageClassification", {"embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 2, "patch_size": 4}),
    "convnext": ("ImageClassification", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "patch_size": 4, "num_stages": 4}),
    "convnextv2": ("ImageClassification", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "patch_size": 4, "num_stages": 4}),
    "resnet": ("ImageClassification", {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1]}),
    "regnet": ("ImageClassification", {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "groups_width": 16}),
    "mobilenet_v2": ("ImageClassification", {}),
    "mobilevit": ("ImageClassification", {"patch_size": 2}),
    "poolformer": ("ImageClassification", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "patch_size": 7}),
    "pvt": ("ImageClassification", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8]}),
    "segformer": ("SemanticSegmentation", {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8], "decoder_hidden_size": 32}),
    "levit": ("ImageClassification", {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1]}),
    "cvt": ("ImageClassification", {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}),
    "dpt": ("SemanticSegmentation", {"use_auxiliary_head": False, "backbone_out_indices": [0, 1, 2, 3], "num_hidden_layers": 4, "neck_hidden_sizes": [16, 32, 48, 64], "fusion_hidden_size": 32, "reassemble_factors": [4, 2, 1, 0.5]}),
    "detr": ("ObjectDetection", {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": {"model_type": "resnet", "embedding_size": 32, "hidden_sizes": [32, 64], "depths": [1, 1], "out_features": ["stage2"]}, "num_queries": 8}),
    "yolos": ("ObjectDetection", {"num_detection_tokens": 8, "image_size": [64, 64]}),
    "timesformer": ("VideoClassification", {"num_frames": 2}),
    "videomae": ("VideoClassification", {"num_frames": 2}),
    # audio
    "wav2vec2": ("CTC", {"conv_dim": [32, 32], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}),
    "hubert": ("CTC", {"conv_dim": [32, 32], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}),
    "wavlm": ("CTC", {"conv_dim": [32, 32], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}),
    "whisper": ("SpeechSeq2Seq", {"max_source_positions": 32, "max_target_positions": 32, "num_mel_bins": 16}),
    "speech_to_text": ("SpeechSeq2Seq", {"conv_channels": 32, "input_feat_per_channel": 16, "max_source_positions": 64, "max_target_positions": 32}),
    "audio-spectrogram-transformer": ("AudioClassification", {"num_mel_bins": 32, "max_length": 64}),
    # more than one kind of input
    "clip": (None, {}),
    "siglip": (None, {}),
    "blip": ("ImageTextToText", {}),
    "vilt": ("VisualQuestionAnswering", {}),
    "llava": ("ImageTextToText", {"image_token_index": 90, "image_token_id": 90, "vision_config": {"model_type": "clip_vision_model"}, "text_config": {"model_type": "llama"}, "vision_feature_layer": -1}),
    "idefics3": ("ImageTextToText", {"image_token_id": 90, "scale_factor": 2}),
    "git": ("CausalLM", {}),
}  # fmt: skip
"""Architecture: (what stands at its end, other settings)."""


def names(every=False):
    """The chosen architectures; with `every`, all that are left, as bare models."""
    others = [name for name in CONFIG_MAPPING if name not in _MODELS] if every else []
    return [*_MODELS, *others]


def build(name):
    head, settings = _MODELS.get(name, (None, {}))
    config = _small(CONFIG_MAPPING[name], settings)
    auto = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    classes = auto._model_mapping[type(config)]
    # Where there are several, the last has more than one head, for distillation.
    kind = classes[0] if isinstance(classes, tuple) else classes
    model = kind(config)
    return model, _inputs(model, config, name)


def _small(kind, settings):
    """A configuration with every size that it knows by a customary name made small."""
    plain = kind()
    sizes = {
        key: size
        for key, size in _SMALL.items()
        if not {key, plain.attribute_map.get(key)} & settings.keys() and _takes(plain, key, size)
    }
    nested = {
        key: _small(type(getattr(plain, key)), {}).to_dict()
        for key in getattr(plain, "sub_configs", {})
        if key not in settings and getattr(plain, key, None) is not None
    }
    for key, value in settings.items():
        if isinstance(value, dict) and "model_type" in value:
            inner = {name: item for name, item in value.items() if name != "model_type"}
            nested[key] = _small(CONFIG_MAPPING[value["model_type"]], inner)
    return kind(**{**sizes, **settings, **nested})


def _takes(config, key, size):
    found = getattr(config, key, None)
    known = key in vars(config) or key in config.attribute_map
    return known and isinstance(found, int | None) and not isinstance(found, bool)


def _inputs(model, config, name):
    wanted = model.main_input_name
    tokens = torch.randint(3, 80, (2, 12))
    images = torch.rand(2, 3, 64, 64)
    inputs = {}
    if wanted == "pixel_values":
        video = "video" in name or "times" in name
        inputs["pixel_values"] = torch.rand(1, 2, 3, 64, 64) if video else images
    elif wanted in ("input_values", "input_features"):
        inputs[wanted] = _sound(name, wanted)
    else:
        inputs["input_ids"] = tokens
    if name in _ALSO:
        inputs |= _ALSO[name]()
    if config.is_encoder_decoder and "decoder_input_ids" in _accepted(model):
        inputs["decoder_input_ids"] = tokens[:, :6]
    return inputs


def _accepted(model):
    return inspect.signature(model.forward).parameters


def _sound(name, wanted):
    if name == "audio-spectrogram-transformer":
        return torch.rand(2, 64, 32)
    if name == "whisper":
        return torch.rand(2, 16, 64)
    return torch.rand(2, 64, 16) if wanted == "input_features" else torch.rand(2, 800)


def _captioned():
    return {"pixel_values": torch.rand(2, 3, 64, 64)}


def _pictures():
    tokens = torch.randint(3, 80, (2, 24))
    tokens[:, 2:18] = 90
    return {"input_ids": tokens, "pixel_values": torch.rand(2, 3, 64, 64)}


_ALSO = {
    "clip": _captioned,
    "siglip": _captioned,
    "blip": lambda: _captioned() | {"input_ids": torch.randint(3, 80, (2, 6))},
    "vilt": _captioned,
    "git": _captioned,
    "llava": _pictures,
    "idefics3": lambda: {
        "input_ids": torch.tensor([[5, 6, 90, 90, 90, 90, 7, 8]]),
        "pixel_values": torch.rand(1, 1, 3, 64, 64),
    },
}
