"""The callbacks of prune-trainers, in the trainers that they are for."""

from importlib import import_module

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_core import ConfigError
from prune_schedule import AGPPruner

STEPS = 6
RULES = [{"final_sparsity": 0.5, "end_step": STEPS, "op_names": ["net.0"]}]
EXAMPLE = torch.zeros(2, 8)


def library(name, part):
    try:
        module = import_module(name)
        getattr(module, part)
        return module
    except Exception as error:
        pytest.skip(f"{name} cannot be imported here: {type(error).__name__}: {error}")


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x, labels=None):
        logits = self.net(x)
        return logits if labels is None else {"loss": F.cross_entropy(logits, labels)}


def examples(count):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 8, generator=generator)
    return [{"x": each, "labels": each[:4].argmax()} for each in x]


def sparsity(pruner):
    return {name: 1 - m["weight"].float().mean().item() for name, m in pruner.masks.items()}


# --- transformers -----------------------------------------------------------------------------


def trained(folder, *, accumulate=1, steps=STEPS, resume=None, save=False, end=False, bf16=False):
    library("accelerate", "Accelerator")
    transformers = library("transformers", "Trainer")
    from prune_trainers.hf import PruneCallback

    model = Classifier()
    pruner = AGPPruner(model, RULES, pruning_algorithm="l1")
    callback = PruneCallback(pruner, example_inputs=EXAMPLE if end else None, shrink_at_end=end)
    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=accumulate,
        max_steps=steps, save_strategy="steps" if save else "no", save_steps=3, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_strategy="no", bf16=bf16,
        lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=examples(64), callbacks=[callback]
    )
    trainer.train(resume_from_checkpoint=resume)
    return model, pruner, callback


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("bf16", [False, True])
def test_transformers_drives_a_schedule(tmp_path, accumulate, bf16):
    _, pruner, callback = trained(tmp_path, accumulate=accumulate, bf16=bf16)
    assert pruner.steps == STEPS
    assert sparsity(pruner) == {"net.0": 0.5}
    assert callback.report is None


def test_transformers_resumes_to_the_bit(tmp_path):
    whole, _, _ = trained(tmp_path / "whole")
    trained(tmp_path / "parts", save=True)
    (tmp_path / "parts/checkpoint-6").rename(tmp_path / "later")
    resumed, pruner, _ = trained(tmp_path / "parts", resume=str(tmp_path / "parts/checkpoint-3"))
    assert pruner.steps == STEPS
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_checkpoint_of_transformers_is_pruned(tmp_path):
    trained(tmp_path, save=True)
    safetensors = library("safetensors.torch", "load_file")
    state = safetensors.load_file(tmp_path / "checkpoint-6/model.safetensors")
    assert (state["net.0.weight"].abs().sum(1) == 0).sum() == 8


def test_transformers_shrinks_at_the_end(tmp_path):
    model, _, callback = trained(tmp_path, end=True)
    assert model.net[0].out_features == 8
    assert model(EXAMPLE).shape == (2, 4)
    assert callback.report.difference < 1e-5
    assert [each.outputs for each in callback.report.layers] == [(16, 8), (4, 4)]


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    trained(tmp_path, save=True)
    (tmp_path / "checkpoint-3/pruning.pt").unlink()
    with pytest.raises(ConfigError, match=r"no pruning\.pt"):
        trained(tmp_path, resume=str(tmp_path / "checkpoint-3"))


# --- Lightning --------------------------------------------------------------------------------


def fitted(folder, *, accumulate=1, steps=STEPS, ckpt=None, end=False):
    lightning = library("lightning", "Trainer")
    from prune_trainers.pl import PruneCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = Classifier()

        def training_step(self, batch, number):
            return self.inner(**batch)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    module = Module()
    pruner = AGPPruner(module.inner, RULES, pruning_algorithm="l1")
    callback = PruneCallback(pruner, example_inputs=EXAMPLE if end else None, shrink_at_end=end)
    loader = torch.utils.data.DataLoader(examples(2 * STEPS * accumulate), batch_size=2)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=steps, accumulate_grad_batches=accumulate, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=ckpt)
    return module, pruner, callback, trainer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_drives_a_schedule(tmp_path, accumulate):
    _, pruner, _, trainer = fitted(tmp_path, accumulate=accumulate)
    assert pruner.steps == STEPS == trainer.global_step
    assert sparsity(pruner) == {"net.0": 0.5}


def test_lightning_resumes_where_it_stopped(tmp_path):
    _, first, _, trainer = fitted(tmp_path, steps=3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    half = sparsity(first)["net.0"]
    state = torch.load(tmp_path / "half.ckpt", weights_only=False)["state_dict"]
    dead = (state["inner.net.0.weight"].abs().sum(1) == 0).float().mean().item()
    assert dead == half
    assert 0 < half < 0.5
    _, pruner, _, _ = fitted(tmp_path, ckpt=tmp_path / "half.ckpt")
    assert pruner.steps == STEPS
    assert sparsity(pruner) == {"net.0": 0.5}


def test_lightning_shrinks_at_the_end(tmp_path):
    module, _, callback, _ = fitted(tmp_path, end=True)
    assert module.inner.net[0].out_features == 8
    assert callback.report.difference < 1e-5


# --- Accelerate, TensorBoard, and what is refused ----------------------------------------------


def test_accelerate_keeps_a_schedule_in_its_checkpoints(tmp_path):
    accelerate = library("accelerate", "Accelerator")

    def begun():
        accelerator = accelerate.Accelerator(cpu=True)
        model = Classifier()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model, optimizer = accelerator.prepare(model, optimizer)
        pruner = AGPPruner(model, RULES, optimizer, pruning_algorithm="l1")
        accelerator.register_for_checkpointing(pruner)
        pruner.compress()
        return accelerator, model, optimizer, pruner

    def step(accelerator, model, optimizer, number):
        batch = torch.utils.data.default_collate(examples(24)[2 * number : 2 * number + 2])
        accelerator.backward(model(**batch)["loss"])
        optimizer.step()
        optimizer.zero_grad()

    accelerator, model, optimizer, _ = begun()
    for number in range(3):
        step(accelerator, model, optimizer, number)
    accelerator.save_state(tmp_path / "half", safe_serialization=False)
    for number in range(3, STEPS):
        step(accelerator, model, optimizer, number)
    other = begun()
    other[0].load_state(tmp_path / "half")
    for number in range(3, STEPS):
        step(*other[:3], number)
    assert other[3].steps == STEPS
    for name, value in model.state_dict().items():
        assert torch.equal(other[1].state_dict()[name], value), name


def test_tensorboard_is_told():
    from prune_trainers.tensorboard import to_tensorboard

    written = []

    class Writer:
        def add_scalar(self, name, value, step):
            written.append((name, round(value, 3), step))

        def add_text(self, name, text, step):
            written.append((name, "parameters" in text, step))

    import prune_core

    with to_tensorboard(Writer()):
        model, masks = prune_core.prune(
            Classifier(), "l1", sparsity=0.5, example_inputs=EXAMPLE, exclude="net.2"
        )
        prune_core.shrink(prune_core.unwrap(model), EXAMPLE, masks)
    assert ("sparsity/net.0", 0.5, 0) in written
    assert ("report", True, 0) in written
    # A tracker that keeps files can have a name as a file, or as a folder.
    names = {name for name, *_ in written}
    assert "sparsity/total" in names
    assert not any(other.startswith(f"{name}/") for name in names for other in names)
    assert any(name == "left/parameters" and value < 0.6 for name, value, _ in written)
    before = len(written)
    prune_core.prune(Classifier(), "l1", sparsity=0.5, example_inputs=EXAMPLE, exclude="net.2")
    assert len(written) == before


def test_mlflow_is_told_without_a_server(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import prune_core
    from prune_trainers.tensorboard import to_tensorboard

    class Writer:
        def add_scalar(self, name, value, step):
            mlflow.log_metric(name, value, step)

        def add_text(self, name, text, step):
            mlflow.log_text(text, f"{name}.txt")

    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run, to_tensorboard(Writer()):
        model, masks = prune_core.prune(
            Classifier(), "l1", sparsity=0.5, example_inputs=EXAMPLE, exclude="net.2"
        )
        prune_core.shrink(prune_core.unwrap(model), EXAMPLE, masks)
    data = mlflow.get_run(run.info.run_id)
    assert data.data.metrics["sparsity/net.0"] == data.data.metrics["sparsity/total"] == 0.5
    assert data.data.metrics["left/parameters"] < 0.6
    assert "parameters" in mlflow.artifacts.load_text(f"{data.info.artifact_uri}/report.txt")


def test_what_cannot_be_driven_is_refused():
    from prune_trainers.driving import Driver

    with pytest.raises(ConfigError, match="follows a training"):
        Driver(object(), None, shrink_at_end=False)
    with pytest.raises(ConfigError, match="example_inputs"):
        Driver(AGPPruner(Classifier(), RULES), None, shrink_at_end=True)
