"""`prune compare`: two results side by side, of runs or of files of models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_core.errors import ConfigError

__all__ = ["Result", "differing", "read_result", "rows"]


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a result; None where it is not.

    Attributes:
        name: How it is called.
        parameters: How many.
        flops: Of one forward of the example.
        bytes: Of parameters and buffers.
        latency: Seconds, the median.
        spread: Seconds, between the quartiles.
        noisy: Whether the clock was too noisy to believe the latency.
        quality: Metrics of the end result.
        shapes: The shape of each tensor.
    """

    name: str
    parameters: int | None = None
    flops: int | None = None
    bytes: int | None = None
    latency: float | None = None
    spread: float | None = None
    noisy: bool = False
    quality: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def read_result(path: Path) -> Result:
    """Read the folder of a finished run, or a file of a model; no code runs.

    Raises:
        ConfigError: It is neither.
    """
    if path.is_dir():
        return _of_run(path)
    if not path.is_file():
        raise ConfigError(f"{path} is not there. Compare folders of runs, or files of models.")
    shapes, sizes = _tensors(path)
    return Result(path.name, parameters=sizes[0], bytes=sizes[1], shapes=shapes)


def _of_run(path: Path) -> Result:
    from prune_report import Document

    report = path / "report.json"
    if not report.is_file():
        begun = (path / "run.json").is_file()
        raise ConfigError(
            f"{path} is an unfinished run: let `prune run` finish it first."
            if begun
            else f"{path} holds no report.json: it is no folder of `prune run`."
        )
    document = Document.from_json(report.read_text(encoding="utf-8"))
    small = path / "small.safetensors"
    shapes = _tensors(small)[0] if small.is_file() else {}
    latency = document.latency
    quality = {each.metric: _last(each) for each in document.quality}
    return Result(
        path.resolve().name,
        parameters=_after(document.parameters),
        flops=_after(document.flops),
        bytes=_after(document.bytes),
        latency=None if latency is None else latency.after.median,
        spread=None if latency is None else latency.after.spread,
        noisy=latency is not None and latency.noisy,
        quality={name: score for name, score in quality.items() if score is not None},
        shapes=shapes,
    )


def _after(change: Any) -> int | None:
    return None if change is None else int(change.after)


def _last(quality: Any) -> float | None:
    stages = (quality.recovered, quality.small, quality.pruned, quality.dense)
    return next((score for score in stages if score is not None), None)


def _tensors(path: Path) -> tuple[dict[str, tuple[int, ...]], tuple[int, int]]:
    """Return the shapes in a file of tensors, and how many values and bytes its floats take."""
    import torch

    from prune_recipes.loading import load_tensors

    tensors = load_tensors(path, "compare")
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict):
        raise ConfigError(f"{path} holds no tensors by name.")
    known = {name: each for name, each in tensors.items() if isinstance(each, torch.Tensor)}
    if not known:
        raise ConfigError(f"{path} holds no tensors by name.")
    floats = [each for each in known.values() if each.is_floating_point()]
    values = sum(each.numel() for each in floats)
    size = sum(each.numel() * each.element_size() for each in known.values())
    return {name: tuple(each.shape) for name, each in known.items()}, (values, size)


def rows(one: Result, other: Result) -> list[tuple[str, str, str, str]]:
    """Return (what, of one, of the other, their ratio) of all that is known of either."""
    made = [
        (name, *_numbers(getattr(one, key), getattr(other, key), "{:,}"))
        for name, key in (("parameters", "parameters"), ("FLOPs", "flops"), ("bytes", "bytes"))
    ]
    made.append(("latency", *_numbers(one.latency, other.latency, "{:.3f} ms", 1000)))
    if one.spread or other.spread:
        made.append(("  spread", *_numbers(one.spread, other.spread, "{:.3f} ms", 1000)[:2], ""))
    for name in dict.fromkeys((*one.quality, *other.quality)):
        a, b = one.quality.get(name), other.quality.get(name)
        left, right, _ = _numbers(a, b, "{:.4g}")
        made.append((name, left, right, "" if a is None or b is None else f"{b - a:+.4g}"))
    return made


def _numbers(
    one: float | None, other: float | None, form: str, factor: float = 1
) -> tuple[str, str, str]:
    texts = [
        "-" if n is None else form.format(n * factor if factor != 1 else n) for n in (one, other)
    ]
    ratio = f"{other / one:.1%}" if one and other is not None else ""
    return texts[0], texts[1], ratio


def differing(one: Result, other: Result) -> list[tuple[str, str, str]]:
    """Return the tensors whose shapes differ, or that only one of the two has."""
    names = dict.fromkeys((*one.shapes, *other.shapes))
    return [
        (name, _shape(one.shapes.get(name)), _shape(other.shapes.get(name)))
        for name in names
        if one.shapes.get(name) != other.shapes.get(name)
    ]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else "×".join(map(str, shape)) or "scalar"


def as_json(one: Result, other: Result) -> dict[str, Any]:
    """Return both as plain data."""
    from dataclasses import asdict

    plain: dict[str, Any] = json.loads(json.dumps({"a": asdict(one), "b": asdict(other)}))
    plain["differing"] = [list(each) for each in differing(one, other)]
    return plain
