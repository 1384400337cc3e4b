"""Write a language model of transformers as a GGUF file, which llama.cpp and its like read.

What a file says of a model is one number for all layers, or a list with a number for each. So
layers may differ in their attention heads and their hidden channels. llama.cpp reads such lists for
the architecture `deci`, whose layers are those of Llama; a Llama whose layers differ is written as
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError, MissingDependencyError

__all__ = ["gguf"]

_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_MIXED = {"llama": "deci", "mistral": "deci"}
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""What llama.cpp calls the architectures whose tensors are written here."""

_TURNED = ("llama", "deci")
"""Where rotary embeddings turn neighbours, and not the halves of a head."""


@dataclass(frozen=True, slots=True)
class _Layer:
    heads: int
    key_value_heads: int
    hidden: int


def gguf(
    model: nn.Module, path: Path, example_inputs: Any = None, *, dtype: torch.dtype | None = None
) -> None:
    """Write a Llama, Mistral, Qwen2 or Qwen3 as a GGUF file, without a tokenizer.

    Args:
        model: The model, one that ends in `ForCausalLM`.
        path: The file.
        example_inputs: Not needed.
        dtype: The type of the matrices: float32, float16 or bfloat16; by default the model's own.
            Norms and biases are written in float32.

    Raises:
        ConfigError: The architecture is another one, or llama.cpp has no form for its layers.
    """
    try:
        import gguf as library
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "GGUF files need the package gguf: `pip install 'prune-core[gguf]'`."
        ) from None
    config: Any = getattr(model, "config", None)
    head: Any = getattr(model, "lm_head", None)
    kind = str(getattr(config, "model_type", ""))
    if kind not in _ARCHITECTURES or head is None:
        raise ConfigError(
            f"{type(model).__name__} cannot be written as GGUF; "
            f"{', '.join(sorted(_ARCHITECTURES))} with a language head can. For any other, save "
            "the folder with save_pretrained and use the converter of llama.cpp."
        )
    _check_rope(config)
    layers, width = _layers(model, config)
    architecture = _ARCHITECTURES[kind]
    if len({*layers}) > 1:
        if kind not in _MIXED:
            raise ConfigError(
                f"The layers of this {type(model).__name__} differ, and llama.cpp knows no {kind} "
                "whose layers do. Prune with uniform=True."
            )
        architecture = _MIXED[kind]
    first = next(model.parameters()).dtype
    wanted = _TYPES.get(dtype or first)
    if wanted is None:
        raise ConfigError(
            f"dtype is {dtype or first}; it must be one of {', '.join(map(str, _TYPES))}."
        )
    writer = library.GGUFWriter(path, architecture)
    _write_numbers(writer, model, config, layers, width)
    writer.add_tokenizer_model("no_vocab")
    names = library.get_tensor_name_map(
        library.MODEL_ARCH[architecture.upper()], config.num_hidden_layers
    )
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and head.weight is _table(model):
            continue  # a tied head is not written twice
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ConfigError(f"llama.cpp has no name for {name!r} of the architecture {kind}.")
        if architecture in _TURNED and name.rpartition(".")[0].endswith(("q_proj", "k_proj")):
            tensor = _turned(tensor, width)
        _write(writer, library, new, tensor, wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _table(model: Any) -> Any:
    return model.get_input_embeddings().weight


def _check_rope(config: Any) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise ConfigError(
            f"The positions are of the kind {kind!r}, and only plain rotary embeddings are written."
        )


def _layers(model: Any, config: Any) -> tuple[list[_Layer], int]:
    """The sizes of each layer, as its tensors have them, and the width of a head."""
    width = int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    found = []
    for layer in model.model.layers:
        attention: Any = getattr(layer, "self_attn", None)
        mlp: Any = getattr(layer, "mlp", None)
        if not hasattr(attention, "q_proj") or not hasattr(mlp, "gate_proj"):
            raise ConfigError(
                "A layer has lost its attention or its hidden layer, for which GGUF has no form. "
                "Take out whole layers instead."
            )
        rows = [attention.q_proj.weight.shape[0], attention.k_proj.weight.shape[0]]
        if any(count % width for count in rows):
            raise ConfigError(
                f"A head has {width} channels in one layer and another number in another, for "
                "which GGUF has no form. Prune whole heads."
            )
        heads, shared = (count // width for count in rows)
        found.append(_Layer(heads, shared, mlp.gate_proj.weight.shape[0]))
    return found, width


def _write_numbers(writer: Any, model: Any, config: Any, layers: list[_Layer], width: int) -> None:
    def one_or_all(values: list[int]) -> Any:
        return values if len({*layers}) > 1 else values[0]

    rope = getattr(config, "rope_parameters", None) or {}
    writer.add_name(type(model).__name__)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_feed_forward_length(one_or_all([each.hidden for each in layers]))
    writer.add_head_count(one_or_all([each.heads for each in layers]))
    writer.add_head_count_kv(one_or_all([each.key_value_heads for each in layers]))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _turned(tensor: Tensor, width: int) -> Tensor:
    """Put the two halves of each head's channels side by side: 0 1 2 3 becomes 0 2 1 3."""
    halves = tensor.reshape(-1, 2, width // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _write(writer: Any, library: Any, name: str, tensor: Tensor, wanted: str) -> None:
    numbers = tensor.detach().cpu().float()
    if tensor.ndim < 2 or wanted == "F32":
        writer.add_tensor(name, numbers.contiguous().numpy())
    elif wanted == "F16":
        writer.add_tensor(name, numbers.half().contiguous().numpy())
    else:
        kind = library.GGMLQuantizationType.BF16
        packed = library.quants.quantize(numbers.contiguous().numpy(), kind)
        writer.add_tensor(name, packed, raw_dtype=kind)
