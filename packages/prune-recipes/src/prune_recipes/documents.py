"""The report of a run: what its steps have noted, as the data that prune-report shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_report import Change, Document, File, Loading, Quality

if TYPE_CHECKING:
    from prune_recipes.steps import Run

__all__ = ["run_document"]


def run_document(run: Run, versions: dict[str, str], created: str) -> Document:
    """Put together what all steps of a finished run have noted."""
    from prune_recipes.steps import DOCUMENT, SEARCH  # imports torch

    parts, searches = _noted(run, DOCUMENT), _noted(run, SEARCH)
    document = parts[-1] if parts else Document(title="")
    search = searches[-1] if searches else Document(title="")
    results = {step: run.folder.result(step.name) for step in run.steps}
    changed = [results[step] for step in run.steps if step.changes]
    dense = run.step_of("train", "dense")
    assert dense is not None
    first, last = results[dense], changed[-1]
    sizes: dict[str, Any] = {
        key: Change(first[key], last[key]) for key in ("parameters", "flops", "bytes", "zeros")
    }
    name = type(run.template).__name__
    quality = _quality(run, results)
    return replace(
        document,
        notes=(*document.notes, *_advice(run, quality)),
        title=name,
        model=name,
        framework="torch",
        blocks=tuple(block for part in parts for block in part.blocks),
        experts=tuple(mixture for part in parts for mixture in part.experts),
        sensitivity=search.sensitivity,
        trials=search.trials,
        optimize_mode=search.optimize_mode,
        created=created,
        algorithm=", ".join(each.algorithm for each in run.recipe.prune),
        quality=quality,
        loading=_loading(run),
        files=tuple(_files(run.folder.path)),
        seconds={step.name: round(results[step]["seconds"], 3) for step in run.steps},
        versions=versions,
        recipe=(run.folder.path / "recipe.yaml").read_text(encoding="utf-8"),
        **sizes,
    )


def _noted(run: Run, name: str) -> list[Document]:
    """Read what steps have written under a name, in their order."""
    files = [run.folder.step(step.name) / name for step in run.steps]
    return [Document.from_json(f.read_text(encoding="utf-8")) for f in files if f.is_file()]


def _quality(run: Run, results: dict[Any, dict[str, Any]]) -> tuple[Quality, ...]:
    stages = {
        "dense": run.step_of("train", "dense"),
        "pruned": run.step_of("prune"),
        "small": run.step_of("shrink"),
        "recovered": run.step_of("finetune", "recover"),
    }
    found: dict[str, dict[str, Any]] = {}
    for stage, step in stages.items():
        for metric, score in results.get(step, {}).get("quality", {}).items():
            found.setdefault(metric, {})[stage] = score
    return tuple(Quality(metric, **scores) for metric, scores in found.items())


def _advice(run: Run, quality: tuple[Quality, ...]) -> list[str]:
    """Say what is worth trying next."""
    if run.step_of("finetune", "recover") is not None:
        return []
    moved = [
        each.metric
        for each in quality
        if each.dense is not None
        and each.pruned is not None
        and abs(each.pruned - each.dense) > 0.01 * abs(each.dense)
    ]
    if not moved:
        return []
    return [
        f"Nothing was trained after pruning, and pruning has changed {', '.join(moved)}. Training "
        "brings back most of what pruning costs: add finetune or recover to the recipe."
    ]


def _loading(run: Run) -> Loading:
    said = run.recipe.model
    lines = ["import prune_core", ""]
    if said.call is not None:
        module, _, name = said.call.partition(":")
        arguments = ", ".join(f"{key}={value!r}" for key, value in said.arguments.items())
        lines.insert(1, f"from {module} import {name.partition('.')[0]}")
        lines.append(f"model = {name}({arguments})  # the dense one, whose weights are replaced")
    elif said.huggingface is not None:
        lines.insert(1, f"from transformers import {said.class_}")
        lines.append(f"model = {said.class_}.from_pretrained({said.huggingface!r})")
    else:
        lines.append(f"model = ...  # what {said.file!r} holds")
    lines.append('prune_core.load_pruned(model, "small.safetensors")')
    return Loading("\n".join(lines))


_WHAT = {
    "small.safetensors": "the small model",
    "masks.safetensors": "the masks",
    "recipe.yaml": "the recipe",
    "run.json": "the recipe with all defaults, versions and environment",
}


def _files(folder: Path) -> list[File]:
    files = [folder / name for name in _WHAT if (folder / name).is_file()]
    exports = sorted((folder / "exports").glob("*")) if (folder / "exports").is_dir() else []
    return [
        File(
            str(file.relative_to(folder)),
            _WHAT.get(file.name, "exported"),
            file.stat().st_size if file.is_file() else None,
        )
        for file in [*files, *exports]
    ]
