# ruff: noqa: E501 - a table is easier to read in wide lines
"""Likely mistakes: one clear sentence each, with its line; and the JSON Schema agrees."""

from pathlib import Path

import jsonschema
import pytest

from prune_recipes import RecipeError, recipe_schema
from prune_recipes.reader import parse_recipe
from prune_recipes.text import Text

GOOD = """\
model: shop:make
inputs: {shape: [1, 3, 8, 8]}
data: shop:batches
prune:
  - algorithm: l1
    sparsity: 0.5
    options: {mode: global}
"""

VALID = {
    "the good one": GOOD,
    "long forms": """\
version: 1
seed: 7
model: {call: shop:make, arguments: {width: 2}, weights: w.safetensors}
inputs: {tensors: {ids: {shape: [1, 8], dtype: int64, below: 100}}}
calibrate: {call: shop:run, arguments: {n: 3}}
train: {call: shop:train, epochs: 3, optimizer: torch.optim:Adam}
prune:
  - {algorithm: block_influence, count: 1}
  - {algorithm: prune-oneshot:wanda, config_list: [{sparsity: 0.5, op_types: [Linear]}]}
shrink: {constants: zero, measure: false}
recover: {data: shop:labelled, validation: shop:others, steps: 5}
export: [{format: onnx}, {format: huggingface, file: folder}]
""",
    "a schedule": """\
model: {huggingface: ./llama, class: LlamaForCausalLM}
inputs: shop:inputs
finetune: shop:train
prune:
  - algorithm: agp
    config_list:
      - {initial_sparsity: 0.1, final_sparsity: 0.5, op_types: [default]}
      - {exclude: true, op_names: [head]}
    options: {total_iteration: 3, pruning_algorithm: l1, pruning_params: {mode: normal}}
shrink: false
""",
    "a target": GOOD.replace("sparsity: 0.5", "target: {flops: 0.5, parameters: 0.5}"),
}

# What is changed in the good recipe, the line that is named, what is said.
MISTAKES = [
    ("sparsity:", "sparsty:", 6, "'sparsty', which is no key there. Did you mean 'sparsity'?"),
    ("sparsity: 0.5", "sparsity: 50", 6, "prune[0].sparsity is 50; it must be less than 1."),
    ("sparsity: 0.5", 'sparsity: "0.5"', 6, "prune[0].sparsity is '0.5'; it must be a number."),
    ("sparsity: 0.5", "sparsity: 50%", 6, "prune[0].sparsity is '50%'; it must be a number."),
    ("    sparsity: 0.5\n", "", 5, "prune[0] needs one of sparsity, target, count or config_list."),
    ("sparsity: 0.5", "sparsity:", 5, "has nothing after 'sparsity'"),
    ("sparsity: 0.5", "target: {flop: 0.5}", 6, "target has 'flop', which nobody counts. Did you mean 'flops'?"),
    ("sparsity: 0.5", "{sparsity: 0.5, target: {flops: 0.5}}", 7, "no YAML"),
    ("sparsity: 0.5", "sparsity: 0.5\n    target: {flops: 0.5}", 5, "has both 'sparsity' and 'target'"),
    ("sparsity: 0.5", "count: 2", 6, "count is for algorithms of blocks"),
    ("algorithm: l1", "algorithm: L1", 5, "Did you mean 'l1'?"),
    ("algorithm: l1", "algorithm: activation_nrom", 5, "Did you mean 'activation_norm'"),
    ("algorithm: l1", "algorithm: agp", 6, "'agp' is told how much to prune by its config_list"),
    ("algorithm: l1", "algorithm: no-such:l1", 5, "No plugin named 'no-such' is installed"),
    ("mode: global", "mod: global", 7, "'l1' takes no 'mod'. Did you mean 'mode'?"),
    ("mode: global", "mode: globl", 7, "mode is 'globl'; it must be one of normal, dependency_aware, global. Did you mean 'global'?"),
    ("mode: global", "batches: many", 7, "batches is 'many'; it must be a whole number or null."),
    ("mode: global", "calibrate: shop:run", 7, "'calibrate' is no option in a recipe: write `calibrate`"),
    ("model: shop:make", "modle: shop:make", 1, "'modle', which is no key there. Did you mean 'model'?"),
    ("model: shop:make", "model: shop.make", 1, "model is 'shop.make'; it must be of the form package.module:name."),
    ("model: shop:make", "model: {file: a.pt, call: shop:make}", 1, "has both 'call' and 'file'"),
    ("model: shop:make\n", "", 1, "the recipe has no 'model', which is needed."),
    ("inputs: {shape: [1, 3, 8, 8]}", "inputs: {shape: 1,3,8,8}", 2, "A list is written in brackets"),
    ("inputs: {shape: [1, 3, 8, 8]}", "inputs: {shape: [1, 3, 0, 8]}", 2, "inputs.shape[2] is 0; it must be at least 1."),
    ("inputs: {shape: [1, 3, 8, 8]}", "inputs: {shape: [1, 3], dtype: float}", 2, "Did you mean 'float64', 'float32' or"),
    ("prune:\n  - algorithm: l1\n    sparsity", "prune:\n    algorithm: l1\n    sparsity", 5, "it must be a list: write a - before each of its entries."),
    ("data: shop:batches", "data: shop:batches\ncalibrate: shop:run", 1, "has both 'calibrate' and 'data'"),
    ("data: shop:batches", "data: shop:batches\nshrink: {constants: exat}", 4, "Did you mean 'exact'?"),
    ("data: shop:batches", "data: shop:batches\nexport: [{format: onx}]", 4, "format is 'onx', which no plugin writes. Did you mean 'onnx'?"),
    ("data: shop:batches", "data: shop:batches\nfinetune: {call: shop:train, epoch: 3}", 4, "Did you mean 'epochs'?"),
    ("data: shop:batches\n", "", 4, "looks at data"),
    ("sparsity: 0.5\n", "config_list: [{sparsity: 0.5, op_type: [Conv2d]}]\n", 6, "Did you mean 'op_types'"),
    ("sparsity: 0.5\n", "config_list: [{sparsity: 0.5}]\n", 6, "config_list[0] selects nothing"),
    ("sparsity: 0.5\n", "config_list: [{op_types: [Conv2d]}]\n", 6, "does not say how much to prune"),
    ("sparsity: 0.5\n", "config_list: [{sparsity: 0.5, op_types: Conv2d}]\n", 6, "a list of strings: write ['Conv2d']"),
    ("sparsity: 0.5\n", "sparsity: 0.5\n    reconstruct: least_square\n", 7, "Did you mean 'least_squares'?"),
]  # fmt: skip


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def parsed(text):
    return Text(Path("recipe.yaml"), text.encode())


@pytest.mark.parametrize("name", VALID)
def test_valid_recipes(validator, name):
    text = parsed(VALID[name])
    parse_recipe(text)
    assert not list(validator.iter_errors(text.data))


@pytest.mark.parametrize(("right", "wrong", "line", "says"), MISTAKES)
def test_mistakes(validator, right, wrong, line, says):
    assert right in GOOD
    changed = GOOD.replace(right, wrong)
    if "looks at data" in says:
        changed = changed.replace("algorithm: l1", "algorithm: taylorfo")
    with pytest.raises(RecipeError) as caught:
        parse_recipe(parsed(changed))
    assert says in str(caught.value)
    assert f"recipe.yaml, line {line}: " in str(caught.value)
    if "no YAML" not in says and "in brackets" not in says:
        assert list(validator.iter_errors(parsed(changed).data)), "the schema finds nothing wrong"


def test_all_mistakes_are_said_at_once():
    changed = (
        GOOD.replace("sparsity", "sparsty").replace("seed", "sed").replace("[1, 3, 8, 8]", "3")
    )
    with pytest.raises(RecipeError) as caught:
        parse_recipe(parsed(changed))
    assert [each.line for each in caught.value.mistakes] == [2, 6]


def test_the_schema_knows_what_third_parties_register():
    from prune_core import Reference, hookimpl
    from prune_core.registry import registered

    class Theirs:
        @hookimpl
        def prune_register_pruners(self):
            return {"theirs": Reference("prune_filter.norm:L1NormPruner", prunes="output channels")}

    assert "theirs" not in recipe_schema()["$defs"]["Algorithm"]["properties"]["algorithm"]["enum"]
    with registered(Theirs(), "acme-theirs"):
        schema = recipe_schema()
        parse_recipe(parsed(GOOD.replace("algorithm: l1", "algorithm: acme-theirs:theirs")))
    assert "theirs" in schema["$defs"]["Algorithm"]["properties"]["algorithm"]["enum"]


def test_every_key_of_a_config_list_is_in_the_schema():
    from prune_core.config.keys import COMMON_KEYS, OPTIONAL_KEYS
    from prune_recipes.schema import KEYS

    # A recipe prunes; what quantisers understand has no place in its rules.
    known = COMMON_KEYS.keys() | OPTIONAL_KEYS.keys()
    assert KEYS.keys() == {key for key in known if not key.startswith("quant_")}
