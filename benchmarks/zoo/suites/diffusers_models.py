"""diffusers' denoisers and autoencoders with random weights, built from small configurations."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

for _name in ("nms", "qnms"):
    # torchvision beside a CPU build of torch lacks these, and fails to import without them.
    if not hasattr(torch.ops.torchvision, _name):
        torch.library.define(
            f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )

import diffusers  # noqa: E402

diffusers.utils.logging.set_verbosity_error()

_TIME = torch.tensor([7])
_IMAGE = {"in_channels": 4, "out_channels": 4}
_TWO = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
_CONDITIONED = {
    **_IMAGE, **_TWO, "sample_size": 16, "cross_attention_dim": 32, "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
_HEADS = {"num_attention_heads": 4, "attention_head_dim": 16}


def _normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _latents(*shape):
    return {"sample": _normal(*shape), "timestep": _TIME}


def _hidden(*shape, **more):
    return {"hidden_states": _normal(*shape), "timestep": _TIME, **more}


def _text(width, length=6):
    return {"encoder_hidden_states": _normal(1, length, width)}


def _ids(count, axes=3):
    return torch.arange(count).float()[:, None].repeat(1, axes)


def _models():
    """Name, class, configuration and inputs of each model."""
    yield (
        "unet_2d", "UNet2DModel",
        {
            **_IMAGE, **_TWO, "sample_size": 16, "attention_head_dim": 8,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        },
        _latents(1, 4, 16, 16),
    )  # fmt: skip
    yield (
        "unet_2d_condition", "UNet2DConditionModel", _CONDITIONED,
        _latents(1, 4, 16, 16) | _text(32),
    )  # fmt: skip
    yield (
        "unet_2d_condition_sdxl", "UNet2DConditionModel",
        {
            **_CONDITIONED, "use_linear_projection": True, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80,
            "transformer_layers_per_block": (1, 2),
        },
        _latents(1, 4, 16, 16) | _text(32)
        | {"added_cond_kwargs": {"text_embeds": _normal(1, 32), "time_ids": _normal(1, 6)}},
    )  # fmt: skip
    yield (
        "unet_1d", "UNet1DModel",
        {
            "in_channels": 14, "out_channels": 14, "sample_size": 16, "time_embedding_type":
            "positional", "act_fn": "mish", "freq_shift": 1.0, "flip_sin_to_cos": False,
            "block_out_channels": (32, 64), "down_block_types": ("DownResnetBlock1D",) * 2,
            "up_block_types": ("UpResnetBlock1D",), "out_block_type": "OutConv1DBlock",
            "mid_block_type": "MidResTemporalBlock1D", "use_timestep_embedding": True,
            "layers_per_block": 1, "norm_num_groups": 8,
        },
        _latents(1, 14, 16),
    )  # fmt: skip
    yield (
        "unet_3d_condition", "UNet3DConditionModel",
        {
            **_IMAGE, **_TWO, "sample_size": 16, "cross_attention_dim": 32, "attention_head_dim": 8,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        _latents(1, 4, 3, 16, 16) | _text(32),
    )  # fmt: skip
    yield (
        "unet_motion", "UNetMotionModel",
        {
            **_IMAGE, **_TWO, "cross_attention_dim": 32, "num_attention_heads": 4,
            "motion_num_attention_heads": 4,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        },
        _latents(1, 4, 3, 16, 16) | {"encoder_hidden_states": _normal(3, 6, 32)},
    )  # fmt: skip
    yield (
        "unet_spatio_temporal", "UNetSpatioTemporalConditionModel",
        {
            "in_channels": 8, "out_channels": 4, "block_out_channels": (32, 64),
            "layers_per_block": 1, "num_attention_heads": (4, 8), "cross_attention_dim": 32,
            "projection_class_embeddings_input_dim": 24, "addition_time_embed_dim": 8,
            "down_block_types": (
                "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
            ),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        },
        _latents(1, 2, 8, 16, 16) | _text(32, 1) | {"added_time_ids": _normal(1, 3)},
    )  # fmt: skip
    yield (
        "controlnet", "ControlNetModel",
        {
            "in_channels": 4, **_TWO, "cross_attention_dim": 32, "attention_head_dim": 8,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "conditioning_embedding_out_channels": (16, 32),
        },
        _latents(1, 4, 16, 16) | _text(32)
        | {"controlnet_cond": _normal(1, 3, 32, 32)},
    )  # fmt: skip
    for name, kind in (("autoencoder_kl", "AutoencoderKL"), ("vq", "VQModel")):
        yield (
            name, kind,
            {
                **_TWO, "in_channels": 3, "out_channels": 3, "latent_channels": 4,
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
            },
            {"sample": _normal(1, 3, 32, 32)},
        )  # fmt: skip
    yield (
        "autoencoder_tiny", "AutoencoderTiny",
        {
            "encoder_block_out_channels": (32, 32), "decoder_block_out_channels": (32, 32),
            "num_encoder_blocks": (1, 2), "num_decoder_blocks": (2, 1),
        },
        {"sample": _normal(1, 3, 32, 32)},
    )  # fmt: skip
    yield (
        "autoencoder_temporal", "AutoencoderKLTemporalDecoder",
        {
            "block_out_channels": (32, 64), "layers_per_block": 1, "latent_channels": 4,
            "down_block_types": ("DownEncoderBlock2D",) * 2,
        },
        {"sample": _normal(3, 3, 32, 32), "num_frames": 3},
    )  # fmt: skip
    yield (
        "autoencoder_oobleck", "AutoencoderOobleck",
        {
            "encoder_hidden_size": 16, "decoder_channels": 16, "downsampling_ratios": [2, 4],
            "channel_multiples": [1, 2], "decoder_input_channels": 8, "audio_channels": 2,
        },
        {"sample": _normal(1, 2, 64)},
    )  # fmt: skip
    yield (
        "autoencoder_dc", "AutoencoderDC",
        {
            "in_channels": 3, "latent_channels": 4, "attention_head_dim": 8,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (16, 32), "decoder_block_out_channels": (16, 32),
            "encoder_qkv_multiscales": ((), (5,)), "decoder_qkv_multiscales": ((), (5,)),
            "encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1),
            "downsample_block_type": "conv", "upsample_block_type": "interpolate",
            "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu",
        },
        {"sample": _normal(1, 3, 16, 16)},
    )  # fmt: skip
    yield (
        "dit", "DiTTransformer2DModel",
        {**_IMAGE, **_HEADS, "num_layers": 2, "sample_size": 8, "num_embeds_ada_norm": 8,
         "norm_num_groups": 8},
        _hidden(1, 4, 8, 8, class_labels=torch.tensor([2])),
    )  # fmt: skip
    yield (
        "pixart", "PixArtTransformer2DModel",
        {**_HEADS, "in_channels": 4, "out_channels": 8, "num_layers": 2, "sample_size": 8,
         "cross_attention_dim": 64, "caption_channels": 24, "use_additional_conditions": False},
        _hidden(1, 4, 8, 8) | _text(24)
        | {"added_cond_kwargs": {"aspect_ratio": None, "resolution": None}},
    )  # fmt: skip
    yield (
        "sd3", "SD3Transformer2DModel",
        {**_HEADS, **_IMAGE, "num_layers": 2, "sample_size": 8, "patch_size": 2,
         "joint_attention_dim": 24, "caption_projection_dim": 64, "pooled_projection_dim": 24},
        _hidden(1, 4, 8, 8, pooled_projections=_normal(1, 24)) | _text(24),
    )  # fmt: skip
    yield (
        "flux", "FluxTransformer2DModel",
        {**_HEADS, "in_channels": 8, "num_layers": 2, "num_single_layers": 2,
         "joint_attention_dim": 24, "pooled_projection_dim": 24, "axes_dims_rope": (4, 4, 8)},
        _hidden(1, 16, 8, pooled_projections=_normal(1, 24), img_ids=_ids(16), txt_ids=_ids(6))
        | _text(24),
    )  # fmt: skip
    yield (
        "aura_flow", "AuraFlowTransformer2DModel",
        {**_HEADS, **_IMAGE, "num_mmdit_layers": 1, "num_single_dit_layers": 2, "sample_size": 8,
         "joint_attention_dim": 24, "caption_projection_dim": 64, "pos_embed_max_size": 64},
        _hidden(1, 4, 8, 8) | _text(24),
    )  # fmt: skip
    yield (
        "sana", "SanaTransformer2DModel",
        {**_IMAGE, **_HEADS, "num_layers": 2, "sample_size": 8, "caption_channels": 24,
         "num_cross_attention_heads": 4, "cross_attention_head_dim": 16,
         "cross_attention_dim": 64, "patch_size": 1},
        _hidden(1, 4, 8, 8) | _text(24),
    )  # fmt: skip
    yield (
        "hunyuan_dit", "HunyuanDiT2DModel",
        {**_HEADS, "in_channels": 4, "num_layers": 2, "sample_size": 8, "patch_size": 2,
         "hidden_size": 64, "mlp_ratio": 2.0, "cross_attention_dim": 24,
         "cross_attention_dim_t5": 24, "pooled_projection_dim": 16, "text_len": 6,
         "text_len_t5": 6, "activation_fn": "gelu-approximate"},
        _hidden(
            1, 4, 8, 8, text_embedding_mask=torch.ones(1, 6), encoder_hidden_states_t5=
            _normal(1, 6, 24), text_embedding_mask_t5=torch.ones(1, 6), image_meta_size=
            torch.ones(1, 6), style=torch.tensor([0]), image_rotary_emb=[_normal(16, 16)] * 2,
        ) | _text(24) | {"timestep": torch.tensor([7.0])},
    )  # fmt: skip
    yield (
        "lumina2", "Lumina2Transformer2DModel",
        {"sample_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 48, "num_layers": 2,
         "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 8,
         "axes_dim_rope": (4, 4, 4), "axes_lens": (64, 64, 64), "cap_feat_dim": 24},
        _hidden(1, 4, 8, 8, encoder_attention_mask=torch.ones(1, 6, dtype=torch.bool)) | _text(24),
    )  # fmt: skip
    yield (
        "cogvideox", "CogVideoXTransformer3DModel",
        {**_HEADS, **_IMAGE, "time_embed_dim": 8, "text_embed_dim": 24, "num_layers": 2,
         "sample_width": 8, "sample_height": 8, "sample_frames": 5, "patch_size": 2,
         "temporal_compression_ratio": 4, "max_text_seq_length": 6},
        _hidden(1, 2, 4, 8, 8) | _text(24),
    )  # fmt: skip
    yield (
        "ltx_video", "LTXVideoTransformer3DModel",
        {**_HEADS, "in_channels": 8, "out_channels": 8, "num_layers": 2, "cross_attention_dim": 64,
         "caption_channels": 24},
        _hidden(
            1, 32, 8, encoder_attention_mask=torch.ones(1, 6), num_frames=2, height=4, width=4
        ) | _text(24),
    )  # fmt: skip
    yield (
        "wan", "WanTransformer3DModel",
        {**_HEADS, **_IMAGE, "patch_size": (1, 2, 2), "text_dim": 24, "freq_dim": 32,
         "ffn_dim": 96, "num_layers": 2, "cross_attn_norm": True, "rope_max_seq_len": 32},
        _hidden(1, 4, 2, 8, 8) | _text(24),
    )  # fmt: skip
    yield (
        "mochi", "MochiTransformer3DModel",
        {**_HEADS, "patch_size": 2, "num_layers": 2, "pooled_projection_dim": 16, "in_channels": 4,
         "time_embed_dim": 4, "text_embed_dim": 24, "activation_fn": "swiglu",
         "max_sequence_length": 6},
        _hidden(1, 4, 2, 8, 8, encoder_attention_mask=torch.ones(1, 6)) | _text(24),
    )  # fmt: skip
    yield (
        "latte", "LatteTransformer3DModel",
        {**_HEADS, "in_channels": 4, "out_channels": 8, "num_layers": 1, "sample_size": 8,
         "patch_size": 2, "cross_attention_dim": 64, "caption_channels": 24, "video_length": 2,
         "activation_fn": "gelu-approximate", "norm_type": "ada_norm_single",
         "norm_elementwise_affine": False},
        _hidden(1, 4, 2, 8, 8) | _text(24),
    )  # fmt: skip
    yield (
        "cogview4", "CogView4Transformer2DModel",
        {**_HEADS, **_IMAGE, "patch_size": 2, "num_layers": 2, "text_embed_dim": 24,
         "time_embed_dim": 8, "condition_dim": 4},
        _hidden(
            1, 4, 8, 8, original_size=torch.tensor([[64, 64]]), target_size=
            torch.tensor([[64, 64]]), crop_coords=torch.tensor([[0, 0]]),
        ) | _text(24),
    )  # fmt: skip
    yield (
        "stable_audio_dit", "StableAudioDiTModel",
        {**_HEADS, "sample_size": 16, "in_channels": 8, "out_channels": 8, "num_layers": 2,
         "num_key_value_attention_heads": 2, "cross_attention_dim": 24,
         "cross_attention_input_dim": 24, "global_states_input_dim": 16, "time_proj_dim": 16},
        _hidden(
            1, 8, 16, global_hidden_states=_normal(1, 1, 16),
            rotary_embedding=[_normal(17, 8)] * 2,
        ) | _text(24),
    )  # fmt: skip
    yield (
        "prior", "PriorTransformer",
        {**_HEADS, "num_layers": 2, "embedding_dim": 24, "num_embeddings": 6,
         "additional_embeddings": 4},
        _hidden(1, 24, proj_embedding=_normal(1, 24)) | _text(24),
    )  # fmt: skip
    yield (
        "qwen_image", "QwenImageTransformer2DModel",
        {**_HEADS, "patch_size": 2, "in_channels": 16, "out_channels": 4, "num_layers": 2,
         "joint_attention_dim": 24, "axes_dims_rope": (4, 4, 8)},
        _hidden(
            1, 16, 16, encoder_hidden_states_mask=torch.ones(1, 6, dtype=torch.long),
            img_shapes=[[(1, 4, 4)]],
        ) | _text(24),
    )  # fmt: skip
    yield (
        "chroma", "ChromaTransformer2DModel",
        {**_HEADS, "patch_size": 1, "in_channels": 8, "num_layers": 1, "num_single_layers": 1,
         "joint_attention_dim": 24, "axes_dims_rope": (4, 4, 8), "approximator_num_channels": 8,
         "approximator_hidden_dim": 16, "approximator_layers": 1},
        _hidden(1, 16, 8, img_ids=_ids(16), txt_ids=_ids(6)) | _text(24),
    )  # fmt: skip
    yield (
        "allegro", "AllegroTransformer3DModel",
        {**_HEADS, **_IMAGE, "patch_size": 2, "patch_size_t": 1, "num_layers": 2,
         "cross_attention_dim": 96, "sample_width": 8, "sample_height": 8, "sample_frames": 2,
         "caption_channels": 24, "attention_head_dim": 24},
        _hidden(
            1, 4, 2, 8, 8, attention_mask=torch.ones(1, 2, 8, 8),
            encoder_attention_mask=torch.ones(1, 6),
            image_rotary_emb=None,
        ) | _text(24),
    )  # fmt: skip
    yield (
        "uvit_2d", "UVit2DModel",
        {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "num_hidden_layers":
         2, "encoder_hidden_size": 24, "cond_embed_dim": 24, "micro_cond_encode_dim": 8,
         "micro_cond_embed_dim": 64, "vocab_size": 40, "codebook_size": 32, "in_channels": 64,
         "block_out_channels": 64, "num_res_blocks": 1, "block_num_heads": 4, "sample_size": 8},
        {
            "input_ids": torch.arange(64).view(1, 8, 8) % 40, "pooled_text_emb": _normal(1, 24),
            "micro_conds": _normal(1, 8),
        } | _text(24),
    )  # fmt: skip


_MODELS = {name: rest for name, *rest in _models()}


def names(every=False):
    return list(_MODELS)


def build(name):
    kind, config, inputs = _MODELS[name]
    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**config).eval()
    with torch.no_grad():
        # What a weight norm of the older kind has computed can only be copied without gradients.
        model(**inputs)
    return model, inputs
