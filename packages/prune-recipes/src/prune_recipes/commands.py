"""The commands that this package adds to `prune`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prune_core.cli.output import AsJson, console, print_json
from prune_core.errors import ConfigError
from prune_recipes.completing import exporters, pruners, recipe_files, run_folders

if TYPE_CHECKING:
    from prune_recipes.code import Code
    from prune_recipes.steps import Run

__all__ = ["check", "compare", "export", "init", "run", "schema"]

RecipeFile = Annotated[
    Path, typer.Argument(help="The recipe, a YAML file.", autocompletion=recipe_files)
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.", autocompletion=run_folders)]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code that the recipe names, without being asked.")
]


def run(
    recipe: RecipeFile,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The folder for all that comes of it."),
    ],
    trust: Trust = False,
) -> None:
    """Do what a recipe says; the same command goes on with a run that was stopped."""
    from prune_recipes.running import run_recipe

    outcome = run_recipe(recipe, output, may_run=lambda code: _ask(code, trust=trust))
    if outcome.already:
        print(f"{output} is finished; nothing is left to do.")
        return
    _print_result(outcome.folder)


def _ask(code: list[Code], *, trust: bool) -> None:
    """List the code that is about to run, and let whoever runs it agree."""
    if not code:
        return
    print("This recipe runs code:", file=sys.stderr)
    for each in code:
        print(f"  {each}", file=sys.stderr)
    if trust:
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        if not typer.confirm("Do you trust it?", err=True):
            raise typer.Abort
        return
    raise ConfigError("This code runs only with your consent. If you trust it, add --trust.")


def _print_result(folder: Path) -> None:
    from prune_report import read, show

    show(read(folder))
    print(f"\nAll of it is in {folder}: report.html to look at, small.safetensors to load.")


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file to write it to.")
    ] = None,
) -> None:
    """Print the JSON Schema of recipes, for editors, made from what is installed."""
    from prune_core.files import replacing
    from prune_recipes.schema import recipe_schema

    text = json.dumps(recipe_schema(), indent=1) + "\n"
    if output is None:
        print(text, end="")
        return
    with replacing(output) as file:
        file.write(text.encode())
    print(f"Wrote {output}. The first line of a recipe tells editors of it:")
    print(f"# yaml-language-server: $schema={output}")


def init(
    recipe: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
    model: Annotated[
        str, typer.Option("--model", "-m", help="What makes the model: package.module:name.")
    ] = "",
    huggingface: Annotated[
        str, typer.Option(help="A folder that save_pretrained wrote, instead.")
    ] = "",
    inputs: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            help="Shape of the input, such as 1,3,224,224, or input_ids=1,16:int64:100 for whole "
            "numbers below 100; or package.module:name of a function that returns inputs.",
        ),
    ] = "",
    sparsity: Annotated[
        float | None, typer.Option(help="The share of the channels that goes.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="What may be left instead, such as flops=0.5 or parameters=0.5.")
    ] = "",
    algorithm: Annotated[str, typer.Option(help="The algorithm.", autocompletion=pruners)] = "",
    data: Annotated[str, typer.Option(help="A function that returns inputs of the model.")] = "",
    evaluate: Annotated[str, typer.Option(help="A function that says how good a model is.")] = "",
    finetune: Annotated[str, typer.Option(help="A function that trains a model.")] = "",
    epochs: Annotated[int, typer.Option(min=1, help="How many times it is called.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a first recipe; in a terminal, what is not said is asked."""
    from prune_core.files import replacing
    from prune_recipes.asking import asked
    from prune_recipes.reader import parse_recipe
    from prune_recipes.schema import recipe_schema
    from prune_recipes.starting import best_algorithm, write_recipe
    from prune_recipes.text import Text

    if recipe.exists() and not force:
        raise ConfigError(f"{recipe} is there already; name another file, or add --force.")
    answers, known = asked(
        model=model,
        huggingface=huggingface,
        inputs=inputs,
        sparsity=sparsity,
        target=target,
        algorithm=algorithm,
        data=data,
        evaluate=evaluate,
        finetune=finetune,
        epochs=epochs,
    )
    beside = recipe.with_name("prune-recipe.schema.json")
    text = write_recipe(answers, known, beside.name, str(recipe)).encode()
    parse_recipe(Text(recipe, text))  # what is wrong in the answers is said before it is written
    with replacing(beside) as file:
        file.write((json.dumps(recipe_schema(), indent=1) + "\n").encode())
    with replacing(recipe) as file:
        file.write(text)
    print(f"{known}.")
    if answers.data and not answers.algorithm and best_algorithm(data=True) == "l1":
        print("pip install prune-oneshot: it has algorithms that rank channels by your data.")
    print(f"Wrote {recipe}, and {beside.name} for your editor. Next:")
    print(f"  prune inspect {recipe}")
    print(f"  prune run {recipe} --output runs/first")


def compare(
    a: Annotated[
        Path, typer.Argument(help="The folder of a run, or a file.", autocompletion=run_folders)
    ],
    b: Annotated[Path, typer.Argument(help="Another one.", autocompletion=run_folders)],
    as_json: AsJson = False,
) -> None:
    """Show two runs, or two files of models, side by side."""
    from prune_recipes.comparing import as_json as plain
    from prune_recipes.comparing import differing, read_result, rows

    one, other = read_result(a), read_result(b)
    if as_json:
        print_json(plain(one, other))
        return
    _print_table([["", one.name, other.name, "b / a"], *map(list, rows(one, other))], numbers=True)
    noisy = [each.name for each in (one, other) if each.noisy]
    if noisy:
        print(f"The clock was noisy: do not trust the latency of {' and '.join(noisy)}.")
    tensors = differing(one, other)
    if not tensors:
        print("\nAll tensors have the same shapes.")
        return
    print(f"\n{len(tensors)} tensor{'s' if tensors[1:] else ''} of other shapes:")
    _print_table([list(each) for each in tensors[:_SHOWN]])
    if tensors[_SHOWN:]:
        print(f"… and {len(tensors) - _SHOWN} more: --json lists them all.")


_SHOWN = 20


def _print_table(lines: list[list[str]], *, numbers: bool = False) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for at in range(len(lines[0])):
        table.add_column(justify="right" if numbers and at else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    console().print(table)


def check(run: RunFolder, trust: Trust = False, as_json: AsJson = False) -> None:
    """Compare the small model of a run with the masked one again, from their files."""
    from prune_recipes.checking import check_run

    found = check_run(_opened(run, trust=trust))
    if as_json:
        print_json(
            [
                {"inputs": e.inputs, "difference": e.difference, "allowed": e.allowed, "ok": e.ok}
                for e in found
            ]
        )
    else:
        for each in found:
            verdict = "the same" if each.ok else "DIFFERENT"
            print(f"{verdict}: {each.difference:.1e} of {each.allowed:.0e}, on {each.inputs}")
    if not all(each.ok for each in found):
        raise typer.Exit(1)


def _opened(folder: Path, *, trust: bool) -> Run:
    from prune_recipes.checking import opened
    from prune_recipes.code import code_of

    run = opened(folder)
    _ask(code_of(run.recipe), trust=trust)
    return run


def export(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(help="The file to write, such as model.onnx.")],
    format: Annotated[  # noqa: A002 - what it is called elsewhere
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="Where the ending does not say: huggingface, onnx, …",
            autocompletion=exporters,
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Write the small model of a run for other tools."""
    from prune_recipes.exporting import export_run

    opened = _opened(run, trust=trust)
    print(f"Wrote {export_run(opened, file, format)}.")
