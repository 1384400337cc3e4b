"""What `prune init` asks, of the user and of the model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import typer

from prune_core.errors import ConfigError
from prune_recipes.recipe import TARGET
from prune_recipes.starting import Answers, Known, ask_model, best_algorithm

__all__ = ["asked"]


def asked(
    *,
    model: str,
    huggingface: str,
    inputs: str,
    sparsity: float | None,
    target: str,
    algorithm: str,
    data: str,
    evaluate: str,
    finetune: str,
    epochs: int,
) -> tuple[Answers, Known]:
    """Return what was said or is answered now, and what the model tells of itself.

    Nothing is asked where there is no terminal: then what is missing is an error, or has a default.
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if not (model or huggingface):
        if not interactive:
            raise ConfigError("Say what makes the model: --model package.module:name.")
        said = typer.prompt("What makes the model (package.module:name, or a folder)")
        model, huggingface = (said, "") if ":" in said else ("", said)
    if model and huggingface:
        raise ConfigError("--model and --huggingface are both given; choose one.")
    if model and re.fullmatch(TARGET, model) is None:
        raise ConfigError(f"--model is {model!r}; it must be of the form package.module:name.")
    known = ask_model(_loaded(model, huggingface))
    if interactive:
        print(f"{known}.")
    if not inputs:
        if not interactive:
            raise ConfigError("Say the shape of an input: --input 1,3,224,224.")
        inputs = typer.prompt("Shape of an input, such as 1,3,224,224 or input_ids=1,16:int64:100")
    if interactive and not data:
        print("With some inputs of the model, less is lost. A function that returns them")
        data = typer.prompt("(package.module:name; empty for none)", default="", show_default=False)
    if interactive and not target and sparsity is None:
        sparsity = typer.prompt("Which share of the channels goes", default=0.5)
    if interactive and not algorithm:
        algorithm = typer.prompt("Algorithm", default=best_algorithm(data=bool(data)))
    if interactive and not evaluate:
        evaluate = _optional("A function of the model that says how good it is")
    if interactive and not finetune:
        finetune = _optional("A function that trains the model for an epoch")
    answers = Answers(
        model=model,
        huggingface=huggingface,
        inputs=inputs,
        sparsity=0.5 if sparsity is None else sparsity,
        target=_target(target),
        algorithm=algorithm,
        data=data,
        evaluate=evaluate,
        finetune=finetune,
        epochs=epochs,
        optimizer=bool(finetune) and _takes_an_optimizer(finetune),
    )
    return answers, known


def _takes_an_optimizer(finetune: str) -> bool:
    from prune_recipes.code import modules_beside
    from prune_recipes.recipe import Call
    from prune_recipes.training import trainer_of

    with modules_beside(Path()):
        return "optimizer" in trainer_of(Call(call=finetune), "--finetune").takes


def _optional(question: str) -> str:
    return str(typer.prompt(f"{question} (empty for none)", default="", show_default=False))


def _target(said: str) -> dict[str, float] | None:
    if not said:
        return None
    target = {}
    for each in said.split(","):
        cost, _, share = each.partition("=")
        try:
            target[cost.strip()] = float(share)
        except ValueError:
            raise ConfigError(
                f"--target is {said!r}; it must be what may be left, such as flops=0.5."
            ) from None
    return target


def _loaded(model: str, huggingface: str) -> Any:
    from torch import nn

    from prune_recipes.code import made, modules_beside

    if not model:
        return _huggingface(Path(huggingface))
    with modules_beside(Path()):
        found = made(model, {}, "--model")
    if not isinstance(found, nn.Module):
        raise ConfigError(
            f"--model: {model} made a {type(found).__name__}, which is no torch model."
        )
    return found


def _huggingface(folder: Path) -> Any:
    from prune_recipes.loading import load_huggingface

    try:
        import json

        named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        named = "AutoModel"
    return load_huggingface(folder, str(named))
