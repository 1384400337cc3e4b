"""A training function that takes an optimizer: told early, and written by `prune init`."""

import pytest

import prune_recipes
from prune_core import ConfigError
from prune_recipes.asking import asked
from prune_recipes.starting import write_recipe

MODULE = """\
from torch import nn

def make():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

def train(model, optimizer):
    pass

def train_alone(model):
    pass
"""
RECIPE = """\
model: {module}:make
inputs: {{shape: [4, 8]}}
prune:
  - {{algorithm: l1, sparsity: 0.5}}
finetune: {module}:train
"""


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    name = f"optimizers_{request.node.name.partition('[')[0]}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_missing_optimizer_is_told_before_anything_runs(module, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(module=module))
    with pytest.raises(ConfigError, match=r"finetune: \w+:train requires an optimizer; say which"):
        prune_recipes.run_recipe("recipe.yaml", "run")
    assert not (tmp_path / "run/steps").exists()


@pytest.mark.parametrize(("function", "written"), [("train", True), ("train_alone", False)])
def test_a_first_recipe_has_an_optimizer_if_the_function_takes_one(module, function, written):
    answers, known = asked(
        model=f"{module}:make", huggingface="", inputs="4,8", sparsity=None, target="",
        algorithm="l1", data="", evaluate="", finetune=f"{module}:{function}", epochs=2,
    )  # fmt: skip
    recipe = write_recipe(answers, known, schema="schema.json")
    assert ("optimizer: {call: torch.optim:Adam" in recipe) is written
