"""Whatever a file holds, reading it gives a recipe or a RecipeError, and nothing else."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_recipes.errors import RecipeError
from prune_recipes.reader import parse_recipe
from prune_recipes.recipe import Recipe
from prune_recipes.text import Text

RECIPE = {
    "model": {"call": "shop:make", "arguments": {"width": 3}, "weights": "a.pt"},
    "inputs": {"tensors": {"x": {"shape": [1, 3], "dtype": "int64", "below": 5}}},
    "seed": 3,
    "data": "shop:batches",
    "train": {"call": "shop:train", "epochs": 2, "optimizer": {"call": "torch.optim:Adam"}},
    "prune": [
        {
            "algorithm": "composed",
            "config_list": [
                {"sparsity": 0.5, "op_types": ["Linear"]},
                {"exclude": True, "op_names": ["a"]},
            ],
            "options": {"metric": "norm", "batches": 3},
            "reconstruct": ["bias"],
        }
    ],
    "shrink": {"constants": "fold", "tolerance": 0.1},
    "export": [{"format": "onnx", "file": "a.onnx"}],
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)
KEYS = st.sampled_from([*RECIPE, *RECIPE["prune"][0], "call", "shape", "steps", "class", "pickle"])


# Each line is ten times as long as the one before.
BOMB = "k0: &k0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"k{at}: &k{at} [{', '.join([f'*k{at - 1}'] * 10)}]\n" for at in range(1, 6)
)


def read(content: bytes) -> Recipe | None:
    try:
        return parse_recipe(Text(Path("recipe.yaml"), content))
    except RecipeError as error:
        mistakes = error.mistakes
    assert mistakes
    assert all(each.said and each.line >= 1 for each in mistakes)
    return None


def test_the_recipe_that_is_changed_is_right():
    assert isinstance(read(json.dumps(RECIPE).encode()), Recipe)


@given(st.binary(max_size=200))
def test_any_bytes(content):
    read(content)


@given(st.text(alphabet="abc:-[]{}&*!<>|'\"#%@`,? \n\t0.1~", max_size=80))
def test_what_looks_like_yaml(text):
    read(text.encode())


@given(JSON)
def test_any_structure(content):
    read(json.dumps(content).encode())


@settings(max_examples=400)
@given(st.data())
def test_changed_recipes(data):
    recipe = deepcopy(RECIPE)
    for _ in range(data.draw(st.integers(1, 3))):
        here = recipe
        while True:
            keys = [*here] if isinstance(here, dict) else [*range(len(here))]
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and data.draw(st.booleans()):
                here = here[key]
                continue
            change = data.draw(st.sampled_from(["value", "drop", "add"]))
            if change == "drop":
                del here[key]
            elif change == "add" and isinstance(here, dict):
                here[data.draw(KEYS | st.text(max_size=6))] = data.draw(JSON)
            else:
                here[key] = data.draw(JSON)
            break
    read(json.dumps(recipe).encode())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("a: &x [*x]", "aliases"),
        (BOMB, "aliases"),
        ("model: !!python/object/apply:os.system [ls]", "would make an object"),
        ("model: !!python/name:os.system", "would make an object"),
        ("a: 1\na: 2", "'a' stands twice"),
        ("<<: {a: 1}", "merge key"),
        ("1: 2", "the key 1 is no text"),
        ("a: .inf", "no number to calculate with"),
        ("a: !!binary aGk=", "write it as a text"),
        ("a:\n\t- b", "no YAML"),
        ("a: 1\n---\nb: 2", "no YAML"),
        ("[1, 2]", "a recipe is a mapping"),
        ("- " * 3000, "nested"),
        ("x" * 2_000_000, "a recipe is short"),
    ],
)  # fmt: skip
def test_what_yaml_can_do(content, says):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(Text(Path("recipe.yaml"), content.encode()))
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    from prune_recipes import read_recipe

    with pytest.raises(RecipeError, match="recipe.yaml: No such file or directory"):
        read_recipe(tmp_path / "recipe.yaml")


def test_numbers_and_dates_mean_what_people_mean():
    text = Text(Path("r"), b"a: 1e-3\nb: 2026-01-31\nc: 1.5e3\nd: -2E5")
    assert text.data == {"a": 0.001, "b": "2026-01-31", "c": 1500.0, "d": -200000.0}
