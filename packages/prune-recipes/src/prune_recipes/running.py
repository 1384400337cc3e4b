"""Running a recipe: its steps one after the other, and what is written around them."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

from prune_core import hookimpl
from prune_core.errors import PruneError, warn
from prune_core.files import replacing
from prune_core.progress import Task
from prune_core.progress.log import is_first, log
from prune_core.registry import manager, plugins
from prune_recipes.code import Code, code_of, modules_beside, sources_of
from prune_recipes.folder import RunFolder, write_json
from prune_recipes.reader import parse_recipe
from prune_recipes.recipe import Recipe, Training
from prune_recipes.text import read_text
from prune_recipes.training import function_for

__all__ = ["Outcome", "run_recipe"]

_PACKAGES = ("torch", "transformers", "numpy", "safetensors", "timm", "torchvision", "onnx")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run.

    Attributes:
        folder: The folder that holds it all.
        already: Whether it was finished before, so that nothing was done.
        went_on: How many steps an earlier start had done.
    """

    folder: Path
    already: bool = False
    went_on: int = 0


def run_recipe(
    path: str | PathLike[str],
    output: str | PathLike[str],
    *,
    may_run: Callable[[list[Code]], None] = lambda code: None,
) -> Outcome:
    """Do what a recipe says, or go on where an earlier start was stopped.

    **It imports and calls the code that the recipe names.** Read a stranger's recipe first, with
    `prune inspect` or `read_recipe`, which run none of it.

    Args:
        path: The recipe.
        output: The folder of the run. It is new or empty, or holds the same recipe's run.
        may_run: Is told what code will run, before any of it does; raise to refuse.

    Raises:
        RecipeError: The recipe is wrong.
        ConfigError: The folder is of another recipe, or something that the recipe names is not
            what it should be.

    Example:
        ```python
        outcome = prune_recipes.run_recipe("recipe.yaml", "runs/half")
        print((outcome.folder / "report.json").read_text())
        ```
    """
    text = read_text(path)
    recipe = parse_recipe(text)
    folder = RunFolder(Path(output))
    if folder.finished:
        folder.begin(text.content, {"recipe": _resolved(recipe)})  # refuses another recipe's
        return Outcome(folder.path, already=True)
    may_run(code_of(recipe))
    with folder.alone(), modules_beside(text.path.parent):
        environment = _environment(sources_of(recipe, text.path.parent))
        for key in ("train", "finetune"):  # a mistake is better told now than after the first steps
            training: Training | None = getattr(recipe, key)
            if training is not None:
                function_for(training, key)
        folder.begin(
            text.content,
            {
                "recipe": _resolved(recipe),
                "beside": str(text.path.parent.resolve()),
                "created": _now(),
                "environment": environment,
            },
        )
        return _run(recipe, text.path.parent, folder, environment)


def _run(recipe: Recipe, beside: Path, folder: RunFolder, environment: dict[str, Any]) -> Outcome:
    from prune_recipes.steps import Run  # imports torch

    run = Run(recipe, beside, folder)
    done = [step for step in run.steps if folder.is_done(step.name)]
    with _recorded(folder.path), Task("prune run", len(run.steps), "step", announce=True) as task:
        if done:
            _warn_of_changes(folder, environment)
        for step in run.steps:
            if folder.is_done(step.name):
                task.advance(f"{step.name} (done before)", replayed=True)
                continue
            task.say(step.name)
            run.do(step)
            task.advance(step.name)
        _finish(run)
    return Outcome(folder.path, went_on=len(done))


def _finish(run: Any) -> None:
    """Write the result; each file appears whole, and `finished.json` is the last of them."""
    from prune_recipes.documents import run_document
    from prune_recipes.steps import MASKS, MODEL
    from prune_report import write

    path = run.folder.path
    last = run.step_of("recover", "finetune", "shrink", "prune")
    pruned = run.step_of("prune")
    copies = {path / "small.safetensors": run.folder.step(last.name) / MODEL}
    copies[path / "masks.safetensors"] = run.folder.step(pruned.name) / MASKS
    for target, source in copies.items():
        if source.is_file():
            with replacing(target) as file, source.open("rb") as from_file:
                shutil.copyfileobj(from_file, file)
    there = run.folder.run
    document = run_document(run, there["environment"]["versions"], there["created"])
    write(document, path)
    write_json(path / "finished.json", {"finished": _now()})


# --- what is written down -----------------------------------------------------------------------


def _resolved(recipe: Recipe) -> dict[str, Any]:
    resolved: dict[str, Any] = json.loads(recipe.model_dump_json(by_alias=True, exclude_none=True))
    return resolved


def _environment(sources: dict[str, str]) -> dict[str, Any]:
    import torch

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    versions |= {each.distribution: each.version for each in plugins() if each.error is None}
    return {
        "versions": versions,
        "sources": sources,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "command": sys.argv[1:],
        "folder": str(Path.cwd()),
    }


def _warn_of_changes(folder: RunFolder, now: dict[str, Any]) -> None:
    """Say what is not as it was when the run began, for the result may differ in the last bits."""
    run = folder.run
    assert run is not None
    then = run.get("environment", {})
    before, after = then.get("versions", {}), now["versions"]
    changed = [
        f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if then.get("threads") != now["threads"]:
        changed.append(f"threads {then.get('threads')} → {now['threads']}")
    if changed:
        warn(
            f"This run began with something else: {', '.join(changed)}. It goes on, and its "
            "numbers may differ in the last digits from those of a run that was not stopped."
        )
    old, new = then.get("sources", {}), now["sources"]
    if files := sorted(file for file in {*old, *new} if old.get(file) != new.get(file)):
        warn(
            f"The code of this recipe has changed since the run began: {', '.join(files)}. Steps "
            "that are done keep what the old code has made. To do them again with the new one, "
            "name another folder with --output."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Listener:
    """Writes what happens into `events.jsonl`, line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: str, **details: Any) -> None:
        line = json.dumps({"time": _now(), "event": event, **details}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @hookimpl
    def prune_progress(self, task: Any) -> None:
        where = f"{task.parent.title}: {task.title}" if task.parent is not None else task.title
        self.write(
            "progress",
            task=where,
            state=task.state,
            done=task.done,
            total=task.total,
            said=task.said,
        )

    @hookimpl
    def prune_masks_made(self, pruner: Any, masks: Any) -> None:
        self.write("masks made", pruner=type(pruner).__name__, modules=len(masks))

    @hookimpl
    def prune_model_shrunk(self, model: Any, report: Any) -> None:
        self.write("model shrunk", parameters=list(report.parameters), difference=report.difference)


@contextmanager
def _recorded(path: Path) -> Iterator[None]:
    """Keep events, log lines and warnings in the folder, beside showing them as always."""
    if not is_first():
        yield
        return
    with ExitStack() as stack:
        listener = _Listener(path / "events.jsonl")
        manager().register(listener)
        stack.callback(manager().unregister, listener)
        handler = logging.FileHandler(path / "run.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        # Another handler would keep the logger from writing to the screen by itself.
        screen = logging.StreamHandler()
        screen.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        for each in (handler, screen):
            log.addHandler(each)
            stack.callback(log.removeHandler, each)
        stack.callback(handler.close)
        stack.enter_context(_warnings_to(handler))
        try:
            yield
        except PruneError as error:
            handler.handle(logging.makeLogRecord({"msg": str(error), "levelname": "ERROR"}))
            raise


@contextmanager
def _warnings_to(handler: logging.Handler) -> Iterator[None]:
    shown = warnings.showwarning

    def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        record = {"msg": f"{category.__name__}: {message}", "levelname": "WARNING"}
        handler.handle(logging.makeLogRecord(record))
        shown(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
