"""Every point at which a plugin can extend prune.

A plugin is a small module, named in the entry-point group `prune_core.plugins`, whose functions
carry `@hookimpl` and one of the names below. Registration hooks return `Reference`s: a registered
class is imported when somebody asks for it by name, never when names are listed.

Nothing here imports torch, TensorFlow or typer, and no plugin's hooks module should.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from prune_core.reference import Reference

if TYPE_CHECKING:
    import typer

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "prune_core"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def prune_register_pruners() -> Mapping[str, Reference]:
    """Name the pruning algorithms of this plugin.

    Called once, when names are first looked up or listed.

    Returns:
        `{name: Reference}`. A name is lower case, with digits and underscores. The referenced
        class takes `(model, config_list, ...)` and has `compress() -> (model, masks)`.

    Example:
        ```python
        @hookimpl
        def prune_register_pruners():
            return {
                "l1": Reference(
                    "prune_filter.norm:L1NormPruner",
                    summary="Prunes the output channels whose weights are smallest in L1 norm.",
                    prunes="output channels",
                    paper="https://arxiv.org/abs/1608.08710",
                )
            }
        ```
    """


@hookspec
def prune_register_quantizers() -> Mapping[str, Reference]:
    """Name the quantisation algorithms of this plugin.

    Called once, when names are first looked up or listed.

    Returns:
        `{name: Reference}`. The referenced class takes `(model, config_list, ...)`, where the
        entries have `quant_types` and `quant_bits`, and has `compress() -> model`: the model then
        computes with quantised numbers. `prune_core.testing.check_quantizer` checks what every
        quantizer promises.

    Example:
        ```python
        @hookimpl
        def prune_register_quantizers():
            return {"ternary": Reference("acme.ternary:TernaryQuantizer", "Three values.")}
        ```
    """


@hookspec
def prune_register_schedules() -> Mapping[str, Reference]:
    """Name the sparsity schedules of this plugin.

    Called once, when names are first looked up or listed.

    Returns:
        `{name: Reference}`. The referenced function takes `(progress, initial, final)`, with a
        progress between 0 and 1, and returns the sparsity at that point.

    Example:
        ```python
        @hookimpl
        def prune_register_schedules():
            return {"half": Reference("acme.curves:half", summary="Jumps to the end half-way.")}
        ```
    """


@hookspec
def prune_register_parts() -> Mapping[str, Mapping[str, Reference]]:
    """Name the parts from which pruners are put together.

    Called once, when names are first looked up or listed.

    Returns:
        `{kind: {name: Reference}}`, where kind is one of `"collector"`, `"metric"`,
        `"allocator"` and `"reconstructor"`, and the referenced class derives from
        `DataCollector`, `MetricsCalculator`, `SparsityAllocator` or `Reconstructor` of
        `prune_toolkit`. An allocator can be chosen as the `mode` of a pruner, a reconstructor
        by `reconstruct=`, and all of them in a `ComposedPruner`.

    Example:
        ```python
        @hookimpl
        def prune_register_parts():
            return {"metric": {"entropy": Reference("acme.entropy:EntropyMetricsCalculator")}}
        ```
    """


@hookspec
def prune_register_engines() -> Mapping[str, Reference]:
    """Name the engine with which models of a framework are analysed and made smaller.

    Called once, when names are first looked up or listed.

    Returns:
        `{framework: Reference}`, a framework being `"torch"`, `"keras"` or a new one. The
        referenced module or object has what `prune_core.engine.Engine` describes.

    Example:
        ```python
        @hookimpl
        def prune_register_engines():
            return {"flax": Reference("acme:engine", summary="Shrinks Flax models.")}
        ```
    """


@hookspec
def prune_register_rules() -> Mapping[str, Reference]:
    """Say how operators move, tie or sum over channels, so that speedup sees through them.

    Called once, when names are first looked up or listed. Operators without a rule are looked at
    by way of what they decompose to, or else leave alone whatever goes into them.

    Returns:
        `{operator: Reference}`, an operator being `"namespace.name"` or
        `"namespace.name.overload"`. The referenced function takes `(flow, call)` and returns the
        value that the operator makes; see `prune_speedup.torch.rules`. An operator for which
        prune-core has a rule keeps it. For a layer of Keras it is the dotted path of its class,
        with `framework="keras"`; see `prune_tf.speedup.rules`.

    Example:
        ```python
        @hookimpl
        def prune_register_rules():
            return {
                "acme.swirl": Reference("acme.rules:swirl"),
                "acme.layers.Swirl": Reference("acme.rules:swirl_layer", framework="keras"),
            }
        ```
    """


@hookspec
def prune_register_resizers() -> Mapping[str, Reference]:
    """Name what writes down sizes on modules of a type once their tensors are smaller.

    Called once, when names are first looked up or listed. Speedup finds most sizes by itself; a
    type whose forward reads several that belong together is better told.

    Returns:
        `{type: Reference}`, a type being its dotted path such as `"acme.layers.Swirl"`;
        subclasses are meant too. The referenced function takes the module, whose tensors are small
        already, and sets its attributes.

    Example:
        ```python
        @hookimpl
        def prune_register_resizers():
            return {"acme.layers.Swirl": Reference("acme.layers:resize_swirl")}
        ```
    """


@hookspec
def prune_register_costs() -> Mapping[str, Reference]:
    """Name what a budget can be about, beside parameters, FLOPs and measured latency.

    Called once, when names are first looked up or listed.

    Returns:
        `{name: Reference}`. The referenced function takes a `prune_speedup.budget.costs.Workload`,
        which says what one forward reads and calls, as shapes, and returns a number of at least 0.
        It is asked for the dense model and for each plan, so `target={"energy": 0.5}` leaves half
        of what the dense model costs.

    Example:
        ```python
        @hookimpl
        def prune_register_costs():
            return {"energy": Reference("acme.energy:picojoules", "Energy on Acme's chip.")}
        ```
    """


@hookspec
def prune_register_exporters() -> Mapping[str, Reference]:
    """Name formats in which models are written for other tools.

    Called once, when names are first looked up or listed.

    Returns:
        `{name: Reference}`, a name being the usual ending of its files. The referenced function
        takes `(model, path, example_inputs, **options)` and writes the file: the model has no
        wrappers and is in eval mode, `example_inputs` may be `None`. `prune_core.export` calls it.

    Example:
        ```python
        @hookimpl
        def prune_register_exporters():
            return {"acme": Reference("acme.export:write", "What Acme's compiler reads.")}
        ```
    """


@hookspec
def prune_register_report_sections() -> Mapping[str, Reference]:
    """Name sections that prune-report adds to its page, after its own.

    Called once, when names are first looked up or listed.

    Returns:
        `{name: Reference}`; the summary of the reference is the title of the section. The
        referenced function takes the `prune_report.document.Document` of a run. It returns text, or
        what `prune_report.html.element` makes, or `None` where it has nothing to say.

    Example:
        ```python
        @hookimpl
        def prune_register_report_sections():
            return {"energy": Reference("acme.energy:section", "Energy on Acme's chip")}
        ```
    """


@hookspec
def prune_register_commands(app: typer.Typer) -> None:
    """Add commands to the `prune` command line.

    Called each time the command line starts, before it reads its arguments.

    Args:
        app: The Typer application of `prune`. Import what a command needs inside its function,
            so that `prune list` stays fast for everyone.

    Example:
        ```python
        @hookimpl
        def prune_register_commands(app):
            @app.command()
            def hello() -> None:
                "Say hello."
                print("hello")
        ```
    """


@hookspec
def prune_masks_made(pruner: Any, masks: Mapping[str, Mapping[str, Any]]) -> None:
    """Hear that a pruner has made masks and put them on its model.

    Called at the end of each `compress()`. What is returned is ignored; an exception becomes a
    warning that names the plugin, so that a listener never costs anyone a run.

    Args:
        pruner: The pruner that made them.
        masks: `{module name: {tensor name: mask}}`, 1 where a value is kept.

    Example:
        ```python
        @hookimpl
        def prune_masks_made(pruner, masks):
            print(type(pruner).__name__, "masked", len(masks), "modules")
        ```
    """


@hookspec
def prune_model_shrunk(model: Any, report: Any) -> None:
    """Hear that a model has been made smaller, after its proof.

    Called at the end of each `shrink()` of torch models that did not fail. What is returned is
    ignored; an exception becomes a warning that names the plugin.

    Args:
        model: The small model.
        report: What was removed and how it was compared, a `SpeedupReport`.

    Example:
        ```python
        @hookimpl
        def prune_model_shrunk(model, report):
            print(f"{report.parameters[0]} -> {report.parameters[1]} parameters")
        ```
    """


@hookspec
def prune_progress(task: Any) -> None:
    """Hear how far something is: a schedule, a search, a calibration, a lottery.

    Called when it begins, with each of its steps, and when it ends. What is returned is ignored; an
    exception becomes a warning that names the plugin.

    Args:
        task: A `prune_core.progress.Task`: its `title`, `unit`, `done` and `total` steps, what was
            `said` last, its `state` (`"begun"`, `"running"`, `"ended"` or `"stopped"`), and the
            `parent` that it belongs to.

    Example:
        ```python
        @hookimpl
        def prune_progress(task):
            if task.state == "ended":
                print(task.title, "made", task.done, "steps in", task.elapsed, "seconds")
        ```
    """
