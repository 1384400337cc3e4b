"""Half of every backbone of keras-hub, as the table of docs/keras/keras-hub.md.

    python benchmarks/keras_hub_backbones.py [backbone ...]

Each is built small, with random weights, and nothing is downloaded. `prune_tf.prune` masks half of
the channels and heads, and `shrink` takes them out. Then this script compares by itself: the
model's outputs, whose masked weights are zero, against the small model's, on other inputs than
`shrink` was given. It shares nothing with prune-tf but those two calls.
"""

import os
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np

import prune_tf
from prune_core import PruneError

TEXT = {
    "vocabulary_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 128,
}
LLM = {
    "vocabulary_size": 64,
    "num_layers": 2,
    "num_query_heads": 8,
    "num_key_value_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 128,
}
SMALL_TEXT = TEXT | {"max_sequence_length": 32}
PICTURE = (32, 32, 3)
VIT = {
    "image_shape": PICTURE,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
}


def without(settings, *names):
    """The settings without some."""
    return {key: value for key, value in settings.items() if key not in names}


def resnet(**changed):
    """Settings of a residual network."""
    return {
        "input_conv_filters": [32],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 64],
        "stackwise_num_blocks": [2, 2],
        "stackwise_num_strides": [1, 2],
        "block_type": "bottleneck_block",
        "image_shape": PICTURE,
    } | changed


def hub(name):
    """The class of a backbone."""
    return getattr(keras_hub.models, name + "Backbone")


def small_image_encoder():
    """What detectors and segmenters are built on."""
    return hub("ResNet")(**resnet(image_shape=(64, 64, 3)))


def clip():
    """Both towers of CLIP."""
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

    vision = CLIPVisionEncoder(
        patch_size=8,
        hidden_dim=32,
        num_layers=2,
        num_heads=4,
        intermediate_dim=128,
        image_shape=PICTURE,
    )
    text = CLIPTextEncoder(
        vocabulary_size=64,
        embedding_dim=32,
        hidden_dim=32,
        num_layers=2,
        num_heads=4,
        intermediate_dim=128,
        max_sequence_length=16,
    )
    return {"vision_encoder": vision, "text_encoder": text, "projection_dim": 32}


def siglip():
    """Both towers of SigLIP."""
    from keras_hub.src.models.siglip.siglip_text_encoder import SigLIPTextEncoder
    from keras_hub.src.models.siglip.siglip_vision_encoder import SigLIPVisionEncoder

    vision = SigLIPVisionEncoder(
        patch_size=8,
        hidden_dim=32,
        num_layers=2,
        num_heads=4,
        intermediate_dim=128,
        image_shape=PICTURE,
    )
    text = SigLIPTextEncoder(
        vocabulary_size=64,
        embedding_dim=32,
        hidden_dim=32,
        num_layers=2,
        num_heads=4,
        intermediate_dim=128,
        max_sequence_length=16,
        projection_dim=32,
    )
    return {"vision_encoder": vision, "text_encoder": text}


def efficientnet():
    """Two blocks of each kind."""
    return {
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [2, 2],
        "stackwise_input_filters": [16, 16],
        "stackwise_output_filters": [16, 32],
        "stackwise_expansion_ratios": [4, 4],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.25],
        "stackwise_strides": [1, 2],
        "stackwise_block_types": ["fused", "unfused"],
        "stackwise_width_coefficients": [1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, False],
        "num_features": 64,
        "input_shape": PICTURE,
    }


def mobilenet():
    """As its own tests build it."""
    return {
        "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
        "stackwise_num_blocks": [2, 3, 2, 3],
        "stackwise_num_filters": [[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
        "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        "stackwise_se_ratio": [[None, None], [0.25] * 3, [0.3, 0.3], [0.3, 0.25, 0.25]],
        "stackwise_activation": [
            ["relu", "relu"],
            ["hard_swish"] * 3,
            ["hard_swish"] * 2,
            ["hard_swish"] * 3,
        ],
        "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        "output_num_filters": 64,
        "input_activation": "hard_swish",
        "output_activation": "hard_swish",
        "input_num_filters": 16,
        "image_shape": (64, 64, 3),
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "squeeze_and_excite": 0.5,
        "last_layer_filter": 128,
    }


def cspnet():
    """As its own tests build it."""
    return {
        "stem_filters": 32,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2, 2],
        "stackwise_strides": [1, 2, 2],
        "stackwise_num_filters": [32, 64, 64],
        "image_shape": PICTURE,
        "down_growth": True,
        "bottle_ratio": [0.5, 1.0, 1.0],
        "block_ratio": [1.0, 0.5, 0.5],
        "expand_ratio": [2.0, 1.0, 1.0],
        "block_type": "dark_block",
        "stage_type": "csp",
    }


def hgnet():
    """Two stages."""
    return {
        "depths": [1, 1],
        "embedding_size": 16,
        "hidden_sizes": [32, 64],
        "stem_channels": [3, 16, 16],
        "hidden_act": "relu",
        "use_learnable_affine_block": False,
        "stackwise_stage_filters": [(16, 16, 32, 1, 2, 3), (32, 32, 64, 1, 2, 3)],
        "apply_downsample": [False, True],
        "use_lightweight_conv_block": [False, False],
        "image_shape": PICTURE,
    }


def mit():
    """Two stages."""
    return {
        "layerwise_depths": [1, 1],
        "num_layers": 2,
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1],
        "max_drop_path_rate": 0.0,
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
        "hidden_dims": [16, 32],
        "image_shape": PICTURE,
    }


def qwen_moe(shared):
    """Experts of four."""
    settings = LLM | {"moe_intermediate_dim": 64, "num_experts": 4, "top_k": 2}
    return settings | ({"shared_expert_intermediate_dim": 64} if shared else {"head_dim": 8})


def smollm():
    """With and without rotary embedding."""
    return {
        "vocabulary_size": 64,
        "hidden_dim": 32,
        "intermediate_dim": 128,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_layer_enabled_list": [True, False],
        "layer_types": ["full_attention"] * 2,
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 64,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
    }


def t5gemma():
    """An encoder and a decoder of one size."""
    settings = {"vocabulary_size": 64, "query_pre_attn_scalar": 8.0}
    for side in ("encoder", "decoder"):
        settings |= {
            f"{side}_hidden_dim": 32,
            f"{side}_intermediate_dim": 128,
            f"{side}_num_layers": 2,
            f"{side}_num_attention_heads": 4,
            f"{side}_num_key_value_heads": 2,
            f"{side}_head_dim": 8,
            f"{side}_layer_types": ["full_attention"] * 2,
        }
    return settings | {"cross_attention_hidden_size": 32}


GEMMA = LLM | {"head_dim": 8}
BACKBONES = {
    # Convolutions
    "CSPNet": cspnet,
    "DeepLabV3": lambda: {
        "image_encoder": small_image_encoder(),
        "low_level_feature_key": "P2",
        "spatial_pyramid_pooling_key": "P3",
        "dilation_rates": [6, 12, 18],
        "upsampling_size": 2,
        "image_shape": (64, 64, 3),
    },
    "DenseNet": lambda: {
        "stackwise_num_repeats": [2, 2],
        "growth_rate": 16,
        "image_shape": PICTURE,
    },
    "EfficientNet": efficientnet,
    "HGNetV2": hgnet,
    "MobileNet": mobilenet,
    "ResNet": resnet,
    "RetinaNet": lambda: {
        "image_encoder": small_image_encoder(),
        "min_level": 2,
        "max_level": 4,
        "use_p5": False,
        "image_shape": (64, 64, 3),
    },
    "VGG": lambda: {
        "stackwise_num_repeats": [2, 2],
        "stackwise_num_filters": [16, 32],
        "image_shape": PICTURE,
    },
    "Xception": lambda: {
        "stackwise_conv_filters": [[32, 64], [64, 128], [128, 256]],
        "stackwise_pooling": [True, True, False],
        "image_shape": (71, 71, 3),
    },
    # Transformers of images
    "DeiT": lambda: VIT | {"intermediate_dim": 128},
    "DINOV2": lambda: VIT | {"intermediate_dim": 128, "position_embedding_shape": PICTURE},
    "DINOV3": lambda: VIT | {"intermediate_dim": 128},
    "MiT": mit,
    "SegFormer": lambda: {"image_encoder": hub("MiT")(**mit()), "projection_filters": 16},
    "SwinTransformer": lambda: {
        "image_shape": PICTURE,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "patch_size": 4,
    },
    "ViT": lambda: VIT | {"patch_size": (8, 8), "mlp_dim": 128},
    "ViTDet": lambda: {
        "hidden_size": 32,
        "num_layers": 2,
        "intermediate_dim": 128,
        "num_heads": 4,
        "global_attention_layer_indices": [1],
        "image_shape": PICTURE,
        "patch_size": 8,
        "num_output_channels": 16,
        "window_size": 2,
    },
    # Images and words
    "CLIP": clip,
    "SigLIP": siglip,
    # Transformers of words that encode
    "Albert": lambda: SMALL_TEXT | {"embedding_dim": 16},
    "Bert": lambda: SMALL_TEXT,
    "DebertaV3": lambda: SMALL_TEXT | {"bucket_size": 16},
    "DistilBert": lambda: SMALL_TEXT,
    "Electra": lambda: (
        without(SMALL_TEXT, "vocabulary_size") | {"vocab_size": 64, "embedding_dim": 16}
    ),
    "ESM": lambda: SMALL_TEXT,
    "FNet": lambda: without(SMALL_TEXT, "num_heads"),
    "Roberta": lambda: SMALL_TEXT,
    "RoformerV2": lambda: TEXT | {"head_size": 8},
    "XLMRoberta": lambda: SMALL_TEXT,
    "XLNet": lambda: TEXT,
    # That encode and decode
    "Bart": lambda: SMALL_TEXT,
    "T5": lambda: TEXT,
    "T5Gemma": t5gemma,
    "Whisper": lambda: (
        TEXT
        | {"num_mels": 16, "max_encoder_sequence_length": 32, "max_decoder_sequence_length": 32}
    ),
    # That decode
    "Bloom": lambda: TEXT,
    "Falcon": lambda: without(TEXT, "num_heads") | {"num_attention_heads": 4},
    "Gemma": lambda: GEMMA,
    "Gemma3": lambda: GEMMA | {"image_size": 16},
    "GPT2": lambda: SMALL_TEXT,
    "GPTNeoX": lambda: SMALL_TEXT,
    "Llama": lambda: LLM,
    "Llama3": lambda: LLM,
    "Mistral": lambda: LLM,
    "OPT": lambda: SMALL_TEXT,
    "Phi3": lambda: LLM,
    "Qwen": lambda: LLM,
    "Qwen3": lambda: GEMMA,
    "SmolLM3": smollm,
    # With experts
    "GptOss": lambda: LLM | {"num_experts": 4},
    "Mixtral": lambda: LLM | {"num_experts": 4},
    "QwenMoe": lambda: qwen_moe(True),
    "Qwen3Moe": lambda: qwen_moe(False),
}


def livened(model, seed=0):
    """Give everything that starts at zero, one or 1e-6 a value that shows when it is wrong."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rpartition("/")[2]
        if "seed" in name or "int" in keras.backend.standardize_dtype(weight.dtype):
            continue
        if name in ("bias", "beta", "moving_mean") or "bias" in name:
            weight.assign(rng.normal(size=shape) * 0.1)
        elif len(shape) == 1:
            weight.assign(rng.uniform(0.5, 1.5, size=shape))
        elif not np.ptp(keras.ops.convert_to_numpy(weight)):
            weight.assign(rng.normal(size=shape) * 0.1)
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        # Statistics of what really comes in; with others the signal would die out on the way.
        model(inputs_for(model, seed, batch=16), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def inputs_for(model, seed, length=16, batch=3):
    """Words, masks with something left out, and numbers."""
    rng = np.random.default_rng(seed)

    def one(tensor):
        shape = [batch if at == 0 else size or length for at, size in enumerate(tensor.shape)]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if "mask" in tensor.name:
            mask = np.ones(shape, dtype)
            mask[0, -length // 4 :] = 0
            return mask
        if "int" in dtype:
            return rng.integers(0, 2 if "segment" in tensor.name else 64, shape).astype(dtype)
        return rng.normal(size=shape).astype(dtype)

    return keras.tree.map_structure(one, model.input)


def outputs_of(model, inputs):
    """What a model puts out, as arrays."""
    found = keras.tree.flatten(model(inputs, training=False))
    return [keras.ops.convert_to_numpy(each).astype(np.float64) for each in found]


def compared(model, small):
    """The largest difference, and by how much outputs move with the input; both relative."""
    difference, moves = 0.0, 1.0
    first, second = (inputs_for(model, seed) for seed in (1, 2))
    here, there = outputs_of(model, first), outputs_of(model, second)
    for inputs, expected in ((first, here), (second, there)):
        for a, b in zip(expected, outputs_of(small, inputs), strict=True):
            difference = max(difference, np.abs(a - b).max() / np.abs(a).max())
    for a, b in zip(here, there, strict=True):
        moves = min(moves, np.abs(a - b).max() / np.abs(a).max())
    return difference, moves


def row(name):
    """Prune and shrink one backbone."""
    keras.utils.set_random_seed(0)
    settings = BACKBONES[name]()
    model = livened(hub(name)(**settings))
    cells = [name, f"{model.count_params():,}"]
    start = time.perf_counter()
    try:
        prune_tf.prune(model, "l1", sparsity=0.5)
        pruned = time.perf_counter() - start
        report = prune_tf.shrink(model, inputs_for(model, 0))
    except PruneError as error:
        return [*cells, "refused", "", str(error)]
    took = time.perf_counter() - start
    difference, moves = compared(model, report.model)
    if moves < 0.01:
        return [*cells, "", "", "outputs do not depend on the input"]
    left = report.parameters[1] / report.parameters[0]
    notes = sorted(set(report.unknown.values()))
    print(f"{name}: {pruned:.0f} + {took - pruned:.0f} s, moves {moves:.2g}", file=sys.stderr)
    return [*cells, f"{left:.0%}", f"{difference:.0e}", f"stays: {', '.join(notes)}" * bool(notes)]


def main():
    """Print the table."""
    names = sys.argv[1:] or list(BACKBONES)
    print("| backbone | parameters | left | difference | |\n" + "| --- " * 5 + "|")
    for name in names:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                cells = row(name)
            except Exception as error:
                cells = [name, "", "failed", "", f"{type(error).__name__}: {str(error)[:300]}"]
        print("| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |", flush=True)
        for each in told if os.environ.get("WARNINGS") else ():
            print("   ", each.message, file=sys.stderr)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
