"""A distiller as the loss of others' training loops: transformers, Lightning, Accelerate."""

import copy

import pytest
import torch
from torch import nn

import prune_core
from prune_recover import Distiller, keep_zeros

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)


def library(name, part):
    """Import a library, or skip: some fail in other ways than by not being there."""
    from importlib import import_module

    try:
        module = import_module(name)
        getattr(module, part)  # which is imported by now, or when it is asked for
        return module
    except Exception as error:
        pytest.skip(f"{name} cannot be imported here: {type(error).__name__}: {error}")


def net(width=16, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def llama():
    transformers = library("transformers", "LlamaForCausalLM")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def sentences(count):
    generator = torch.Generator().manual_seed(1)
    for number in range(count):
        ids = torch.randint(3, 50, (12,), generator=generator)
        mask = (torch.arange(12) < 12 - number % 4).long()
        labels = torch.where(mask == 1, ids, -100)
        yield {"input_ids": ids, "attention_mask": mask, "labels": labels}


def trained(student, teacher, tmp_path, batch, accumulate):
    transformers = library("transformers", "Trainer")
    library("accelerate", "Accelerator")
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=batch, learning_rate=1e-2,
        gradient_accumulation_steps=accumulate, report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True, optim="sgd", lr_scheduler_type="constant",
    )  # fmt: skip
    with Distiller(student, teacher) as distiller:
        trainer = transformers.Trainer(
            student,
            arguments,
            train_dataset=list(sentences(16)),
            compute_loss_func=distiller,
        )
        trainer.train()
    return {name: value.clone() for name, value in student.state_dict().items()}


def test_a_trainer_of_transformers(tmp_path):
    teacher = llama()
    student, _ = prune_core.prune(copy.deepcopy(teacher), "level", sparsity=0.5, exclude="lm_head")
    prune_core.unwrap(student)
    before = copy.deepcopy(student)
    with keep_zeros(student) as zeros:
        trained(student, teacher, tmp_path, 4, 1)
    assert zeros.count > 1000
    changed = 0
    for one, two in zip(before.parameters(), student.parameters(), strict=True):
        if one.ndim == 2 and (one == 0).float().mean() > 0.3:
            assert torch.equal(one == 0, two == 0)
        changed += int((one != two).sum())
    assert changed > 1000


def test_accumulated_batches_train_as_one(tmp_path):
    teacher, states = llama(), []
    for batch, accumulate in ((4, 1), (1, 4)):
        student = copy.deepcopy(teacher)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(0.8)
        states.append(trained(student, teacher, tmp_path / str(batch), batch, accumulate))
    # Padding is shared out by samples and labels by tokens, so they agree nearly, not to the bit.
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-2, atol=2e-3)


def test_the_labels_of_a_language_model_are_the_next_tokens():
    model = llama()
    batch = {name: value.unsqueeze(0) for name, value in next(sentences(1)).items()}
    wanted = model(**batch).loss
    labels = batch.pop("labels")
    torch.testing.assert_close(Distiller(model, None).loss(model(**batch), labels), wanted)


@pytest.mark.parametrize("return_dict", [True, False])
def test_recover_takes_the_batches_of_a_model_of_transformers(return_dict):
    teacher = llama()
    inputs = {name: value.unsqueeze(0) for name, value in next(sentences(1)).items()}
    batches = [{**inputs, "return_dict": return_dict}] * 4
    example = {name: batches[0][name] for name in ("input_ids", "attention_mask")}
    student, masks = prune_core.prune(
        copy.deepcopy(teacher), "l1", sparsity=0.5, example_inputs=example, exclude="lm_head"
    )
    prune_core.shrink(prune_core.unwrap(student), example, masks)
    report = prune_core.recover(
        student, batches, teacher=teacher, epochs=5, hidden=["model.layers.0", "model.layers.1"]
    )
    assert report.terms_after.keys() == {"logits", "hidden", "labels"}
    assert report.terms_after["hidden"] < report.terms_before["hidden"]
    assert report.loss_after < report.loss_before


def test_lightning(tmp_path):
    lightning = library("lightning", "LightningModule")
    teacher, small = net(), net(width=6, seed=1)

    class Student(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.small, self.distiller = small, Distiller(small, teacher)

        def training_step(self, batch, number):
            x, y = batch
            return self.distiller.loss(self.small(x), y)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    module = Student()
    assert not any("teacher" in name for name in module.state_dict())
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 8)
    before = Distiller(small, teacher).loss(small(X), Y).item()
    trainer = lightning.Trainer(
        max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data)
    assert Distiller(small, teacher).loss(small(X), Y).item() < 0.8 * before


def test_accelerate():
    accelerate = library("accelerate", "Accelerator")
    accelerator = accelerate.Accelerator(cpu=True)
    teacher, small = net(), net(width=6, seed=1)
    optimizer = torch.optim.Adam(small.parameters(), 1e-2)
    distiller = Distiller(small, teacher)
    model, optimizer = accelerator.prepare(small, optimizer)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = distiller.loss(model(X))
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
