"""`prune init`: a first recipe, for a model that is asked what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from prune_core.registry import names

__all__ = ["Answers", "Known", "ask_model", "best_algorithm", "write_recipe"]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a first recipe is made of.

    Attributes:
        model: `package.module:name`, or empty.
        huggingface: A folder, or empty.
        inputs: What the inputs are, such as `1,3,224,224`, or a function that returns them.
        sparsity: How much goes.
        target: What may be left instead, such as `{"flops": 0.5}`.
        algorithm: The name of one, or empty for the best.
        data: A function that returns inputs, or empty.
        evaluate: A function that returns how good a model is, or empty.
        finetune: A function that trains a model, or empty.
        epochs: How many times it is called.
        optimizer: Whether it requires an optimizer.
    """

    model: str = ""
    huggingface: str = ""
    inputs: str = ""
    sparsity: float = 0.5
    target: dict[str, float] | None = None
    algorithm: str = ""
    data: str = ""
    evaluate: str = ""
    finetune: str = ""
    epochs: int = 1
    optimizer: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What a model tells of itself.

    Attributes:
        kind: Its class.
        family: "convolutional", "transformer" or "other".
        parameters: How many.
        layers: How many of each class have weights.
        transformers: Whether it is one of the library transformers.
    """

    kind: str
    family: str
    parameters: int
    layers: dict[str, int]
    transformers: bool = False

    def __str__(self) -> str:
        layers = ", ".join(f"{count} {name}" for name, count in self.layers.items())
        return f"{self.kind}: {self.parameters:,} parameters, {self.family}; {layers}"


def ask_model(model: Any) -> Known:
    """Look at what a model consists of."""
    from torch import nn

    layers: dict[str, int] = {}
    attention = False
    for module in model.modules():
        attention = attention or "attention" in type(module).__name__.lower()
        if next(module.parameters(recurse=False), None) is not None:
            name = type(module).__name__
            layers[name] = layers.get(name, 0) + 1
    convolutional = any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    family = (
        "a transformer" if attention else "convolutional" if convolutional else "fully connected"
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    frequent = dict(sorted(layers.items(), key=lambda item: -item[1])[:4])
    return Known(
        type(model).__name__, family, parameters, frequent, hasattr(model, "save_pretrained")
    )


def best_algorithm(*, data: bool) -> str:
    """Return the algorithm to begin with, of those that are installed; see docs/choosing.md."""
    from prune_speedup.algorithm import WITH_DATA, WITHOUT_DATA

    there = [name for name in WITH_DATA if name in names("pruner")]
    return there[0] if data and there else WITHOUT_DATA


def write_recipe(answers: Answers, known: Known, schema: str, file: str = "recipe.yaml") -> str:
    """Return the text of a first recipe.

    Args:
        answers: What was answered.
        known: What the model told.
        schema: The file of the JSON Schema, for editors.
        file: The file that it is for.
    """
    chosen = answers.algorithm or best_algorithm(data=bool(answers.data))
    lines = [
        f"# yaml-language-server: $schema={schema}",
        f"# {known}.",
        f"# Try it: prune run {file} --output runs/first",
        "",
    ]
    if answers.huggingface:
        lines += [
            "model:",
            f"  huggingface: {_text(answers.huggingface)}",
            f"  class: {known.kind}",
        ]
    else:
        lines.append(f"model: {answers.model}")
    lines += [
        "",
        "# With these the model is traced, and the small one compared.",
        *_inputs(answers.inputs),
    ]
    if answers.data:
        lines += [
            "",
            "# Returns inputs of the model; labels are not needed.",
            f"data: {answers.data}",
        ]
    lines += ["", "prune:", f"  - algorithm: {chosen}"]
    if answers.target:
        inside = ", ".join(f"{cost}: {share:g}" for cost, share in answers.target.items())
        lines.append(f"    target: {{{inside}}}  # what may be left")
    else:
        lines.append(f"    sparsity: {answers.sparsity:g}  # the share of the channels that goes")
    if answers.data:
        lines.append("    reconstruct: least_squares  # weights that stay make up for the others")
    if answers.evaluate:
        lines += [
            "",
            "# Takes the model and returns a number, or a dict of numbers.",
            f"evaluate: {answers.evaluate}",
        ]
    lines.append("")
    if answers.finetune:
        lines += ["finetune:", f"  call: {answers.finetune}", f"  epochs: {answers.epochs}"]
        if answers.optimizer:
            lines.append("  optimizer: {call: torch.optim:Adam, arguments: {lr: 0.001}}")
    else:
        lines += [
            "# Training brings back most of what pruning costs. A function of the model:",
            "# finetune: {call: package.module:train_one_epoch, epochs: 3}",
        ]
    formats = ["huggingface" if known.transformers else "safetensors"]
    lines += ["", "export:", *(f"  - format: {name}" for name in formats), ""]
    return "\n".join(lines)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _inputs(said: str) -> list[str]:
    """Write `1,3,224,224`, `input_ids=1,16:int64:100` or `module:function` as the recipe does."""
    if "=" not in said and not said.replace(" ", "")[:1].isdigit():
        return [f"inputs: {said}"]
    if "=" not in said:
        return [f"inputs: {_tensor(said)}"]
    lines = ["inputs:", "  tensors:"]
    for each in said.split(";"):
        name, _, tensor = each.partition("=")
        lines.append(f"    {name.strip()}: {_tensor(tensor)}")
    return lines


def _tensor(said: str) -> str:
    shape, _, rest = said.replace(" ", "").partition(":")
    dtype, _, below = rest.partition(":")
    parts = [f"shape: [{', '.join(shape.split(','))}]"]
    parts += [f"dtype: {dtype}"] if dtype else []
    parts += [f"below: {below}"] if below else []
    return f"{{{', '.join(parts)}}}"
