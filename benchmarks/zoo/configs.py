"""What becomes of the config of each transformers model, and whether it still generates.

`python benchmarks/zoo/configs.py --results configs.jsonl` prunes every model of the zoo's
transformers suite twice, blindly: half of all units, the width of the model among them; and, of
what is inside of single layers, another share in each. Then it saves and loads the result as a user
would, and generates with it. `--page` prints the page that the results make.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "packages" / "prune-speedup" / "tests" / "zoo")]

from processes import in_a_process, read  # noqa: E402
from suites import suite  # noqa: E402

import prune_core  # noqa: E402
from prune_core.errors import PruneError  # noqa: E402

WAYS = {"alike": (0.5, 0.5), "differ": (0.25, 0.5)}
"""The share of the units that layers lose: all the same, or each one of these."""

LAYER = re.compile(r"(.*?\.\d+)\.")


def measured(name):
    """What becomes of a model in both ways."""
    warnings.simplefilter("ignore")
    zoo = suite("transformers")
    ways = {way: pruned(zoo, name, shares) for way, shares in WAYS.items()}
    return {"ways": ways, "versions": {each: version(each) for each in ("torch", "transformers")}}


def pruned(zoo, name, shares):
    """Prune, save, load and generate."""
    from judge import realistic

    torch.manual_seed(0)
    model, inputs = zoo.build(name)
    model = realistic(model)
    talks = model.can_generate() and "input_ids" in inputs | {model.main_input_name: None}
    before = problem_before(zoo, name) if talks else "it writes no text"
    found = prune_core.units(model, inputs)
    pick = random.Random(0)
    chosen = [
        found.unit(label)
        for group in found.groups
        if shares[0] == shares[1] or in_one_layer(found.unit(group.labels[0]))
        for label in pick.sample(group.labels, int(len(group) * pick.choice(shares)))
    ]
    report = prune_core.shrink(model, inputs, units=chosen)
    row = {"parameters": report.parameters, "config": "", "difference": None, "generates": ""}
    expected = outputs_of(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
        except PruneError as error:
            row |= {"config": "refused", "said": str(error)}
            if "load_pruned" not in str(error):
                raise ValueError(f"the refusal names no way out: {error}") from error
            prune_core.save_pruned(model, Path(folder) / "small.safetensors")
            again = prune_core.load_pruned(
                realistic(zoo.build(name)[0]), Path(folder) / "small.safetensors"
            )
        else:
            differs = "per_layer_config" in (Path(folder) / "config.json").read_text("utf-8")
            row["config"] = "per layer" if differs else "one number"
            load = prune_core.from_pretrained if differs else type(model).from_pretrained
            again = load(folder)
    row["difference"] = apart(expected, outputs_of(again.eval(), inputs))
    if before:
        return row | {"generates": "", "why": before}
    wrong = problem_with_generating(model, inputs) or problem_with_generating(again, inputs)
    same = not wrong and torch.equal(generated(model, inputs), generated(again, inputs))
    return row | {"generates": "yes" if same else "no", "why": wrong}


def problem_before(zoo, name):
    """Why the model as it was does not write the same with its cache; empty if it does.

    One draw of weights may hide it: many a model without training repeats one token for ever.
    """
    from judge import realistic

    problems = []
    for seed in range(4):
        torch.manual_seed(seed)
        model, inputs = zoo.build(name)
        problems.append(problem_with_generating(realistic(model), inputs))
    return next(filter(None, problems), "")


def in_one_layer(unit):
    """Whether all that goes with a unit belongs to the same layer."""
    layers = {match and match[1] for match in map(LAYER.match, unit.slices)}
    return len(layers) == 1 and None not in layers


def outputs_of(model, inputs):
    """The tensors that a model returns."""
    from oracle import tensors

    torch.manual_seed(0)
    with torch.no_grad():
        return [each for each in tensors(model(**inputs)) if each.is_floating_point()]


def apart(expected, found):
    """The largest difference, relative to the largest number of its output."""
    pairs = [*zip(expected, found, strict=True)]
    if any(left.shape != right.shape for left, right in pairs):
        return float("inf")
    finite = ((a, b, a[a.isfinite()].abs()) for a, b in pairs if a.numel())
    return max(
        float((a - b).nan_to_num(0, 0, 0).abs().max() / max(float(size.max()), 1e-12))
        for a, b, size in finite
        if size.numel()
    )


def generated(model, inputs, **how):
    """Five tokens more, the likeliest."""
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": 1} | how
    given = {key: value for key, value in inputs.items() if key != "labels"}
    torch.manual_seed(0)
    with torch.no_grad():
        return model.generate(**given, **how)


def problem_with_generating(model, inputs):
    """Why a model writes something else with its cache than without, or cannot; empty if it can."""
    try:
        found = [generated(model, inputs, use_cache=cache) for cache in (True, False)]
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return "" if torch.equal(*found) else "with its cache it writes something else"


# --- the page -----------------------------------------------------------------------------------

HEAD = """\
# Configs of pruned transformers

A config describes a model of transformers by a few numbers. This page shows what becomes of it when
the model is pruned. Units of every model of [the zoo's](speedup-zoo.md) transformers suite were
chosen blindly and removed, in two ways:

* *alike*: half of all units, those of the width of the model included;
* *differ*: of heads and hidden channels, a quarter in some layers and half in others.

Then the model was saved and loaded. There are three outcomes:

* **one number**: the config follows, and `from_pretrained` of transformers reads it.
* **per layer**: the config says what each layer has, and `prune_core.from_pretrained` reads it.
* **refused**: no config describes the model. `save_pretrained` raises an error that names the way
  out: `prune_core.save_pruned` and `prune_core.load_pruned`. Here the model was saved and loaded
  by these.

*Difference* is between the outputs of the saved and of the loaded model, relative to the largest
number of an output. *Generates* means that five tokens, always the likeliest, are the same with a
cache and without, before saving and after. A dash stands for a model that writes no text, or that
fails this before it is pruned.

## Why a config is refused

* **No width of a head.** The configs of BERT, BART, Whisper, LED and their relatives have none: a
  head is as wide as the model divided by the number of heads. With fewer heads each would be wider.
  If the model becomes narrower by the same share, as under *alike*, BERT's config still works. The
  width of an encoder-decoder stays, because the model returns what its encoder computes. So with
  fewer heads its config is refused. With the heads left alone it follows.
* **One number for several layers.** In an encoder-decoder a config speaks of layer 3 of the encoder
  and layer 3 of the decoder at once. UMT5, whose config does have a width of a head, may keep other
  numbers of heads in each layer, if both sides keep the same. The experts of one mixture have one
  width.
* **No number at all.** Some sizes are written in the source, such as the 512 hidden units of the
  position bias of Swin v2. And a parameter that the example does not reach stays as it was, such as
  the mask token of DINOv2, though all that it is added to has become narrower.

## Results

{summary}

{table}

Made with {versions}, by

```sh
python benchmarks/pages.py configs
```
"""


def page_of(rows):
    """The page that the last row of every model makes."""
    lines = [
        "| model | alike | difference | generates | differ | difference | generates |",
        "| --- | --- | --: | --- | --- | --: | --- |",
    ]
    tally = {way: Counter() for way in WAYS}
    for row in rows.values():
        cells = [row["model"]]
        for way in WAYS:
            said = row.get("ways", {}).get(way)
            if said is None:
                cells += [f"failed: {row.get('reason', '')[:80]}", "", ""]
                tally[way]["failed"] += 1
                continue
            tally[way][said["config"]] += 1
            tally[way]["generates" if said["generates"] == "yes" else ""] += 1
            apart = "0" if not said["difference"] else f"{said['difference']:.0e}"
            why = f": {said['why']}" if said["generates"] == "no" and said["why"] else ""
            cells += [said["config"], apart, (said["generates"] or "–") + why]
        lines.append("| " + " | ".join(cells) + " |")
    states = ("one number", "per layer", "refused", "failed", "generates")
    summary = [
        "| layers | models | " + " | ".join(states) + " |",
        "| --- |" + " --: |" * (len(states) + 1),
        *(
            f"| {way} | {len(rows)} | " + " | ".join(str(count[state]) for state in states) + " |"
            for way, count in tally.items()
        ),
    ]
    found = {name: said for row in rows.values() for name, said in row.get("versions", {}).items()}
    versions = ", ".join(f"{name} {said.partition('+')[0]}" for name, said in found.items())
    return HEAD.format(summary="\n".join(summary), table="\n".join(lines), versions=versions)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("configs.jsonl"))
    parser.add_argument("--page", action="store_true", help="print the page, run nothing")
    parser.add_argument("--only", default="", help="a model's name; done again")
    parser.add_argument("--part", default="0/1", help="of several processes: 1/2 is the second")
    parser.add_argument("--seconds", type=int, default=900, help="that a model may take")
    parser.add_argument("--gigabytes", type=float, default=12, help="that a model may take")
    options = parser.parse_args()
    rows = read(options.results)
    if options.page:
        sys.stdout.write(page_of(rows))
        return
    part, parts = map(int, options.part.split("/"))
    for name in suite("transformers").names()[part::parts]:
        if (options.only and options.only != name) or (name in rows and not options.only):
            continue
        row = {"model": name, **in_a_process(partial(measured, name), options)}
        with options.results.open("a") as lines:
            print(json.dumps(row), file=lines)
        print(name, row.get("reason", ""), flush=True)
        for way, said in row.get("ways", {}).items():
            print("   ", way, {k: v for k, v in said.items() if k != "said"}, flush=True)


if __name__ == "__main__":
    main()
