"""A gradual schedule that others' training loops drive: Accelerate, transformers, Lightning.

Each wraps the optimizer in an object of its own, accumulates gradients and may skip steps. The
schedule counts the steps that change weights.
"""

from importlib import import_module

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prune_schedule import AGPPruner

STEPS = 8
RULES = [{"final_sparsity": 0.75, "end_step": STEPS, "op_types": ["Linear"]}]
CRITERIA = ["level", "taylorfo", "mean_activation"]


def library(name, part):
    """Import a library, or skip: some fail in other ways than by not being there."""
    try:
        module = import_module(name)
        getattr(module, part)  # which is imported by now, or when it is asked for
        return module
    except Exception as error:
        pytest.skip(f"{name} cannot be imported here: {type(error).__name__}: {error}")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def batches(count):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        x = torch.randn(8, 8, generator=generator)
        yield x, x[:, :4].argmax(1)


def masked(pruner):
    return {name: 1 - m["weight"].float().mean().item() for name, m in pruner.masks.items()}


# --- Accelerate -------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("accumulate", [1, 4])
def test_accelerate(accumulate, criterion):
    accelerate = library("accelerate", "Accelerator")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    model, optimizer = accelerator.prepare(model, optimizer)
    pruner = AGPPruner(model, RULES, optimizer, pruning_algorithm=criterion)
    pruner.compress()
    seen = []
    for x, y in batches(STEPS * accumulate):
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()
        seen.append(masked(pruner)["0"])
    assert pruner.steps == STEPS
    assert masked(pruner) == {"0": 0.75, "2": 0.75}
    # With four batches a step, masks change with every fourth.
    assert len(set(seen)) > 4
    assert all(seen[i] == seen[i - i % accumulate] or i % accumulate == accumulate - 1
               for i in range(len(seen)))  # fmt: skip


def test_accelerate_does_not_count_what_its_scaler_skips():
    accelerate = library("accelerate", "Accelerator")
    accelerate.Accelerator(cpu=True)
    model = net()
    # What mixed precision on a GPU would bring.
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    plain = torch.optim.SGD(model.parameters(), 0.01)
    optimizer = accelerate.optimizer.AcceleratedOptimizer(plain, scaler=scaler)
    pruner = AGPPruner(model, RULES, optimizer, pruning_algorithm="level")
    pruner.compress()
    for number, (x, y) in enumerate(batches(STEPS)):
        loss = F.cross_entropy(model(x), y) * (float("inf") if number in (2, 5) else 1.0)
        scaler.scale(loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert pruner.steps == STEPS - 2


# --- transformers -----------------------------------------------------------------------------


class Examples(torch.utils.data.Dataset):
    def __init__(self):
        self.pairs = [
            {"x": x, "labels": y} for xs, ys in batches(8) for x, y in zip(xs, ys, strict=True)
        ]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, place):
        return self.pairs[place]


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("when", ["before", "in a callback"])
def test_trainer_of_transformers(when, accumulate, criterion, tmp_path):
    library("accelerate", "Accelerator")
    transformers = library("transformers", "Trainer")
    model = Classifier()
    pruners = []

    class Prune(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, optimizer=None, **more):
            if when == "before":
                pruners[0].optimizer = optimizer
            else:
                pruners.append(AGPPruner(model, RULES, optimizer, pruning_algorithm=criterion))
            pruners[0].compress()

    if when == "before":
        pruners.append(AGPPruner(model, RULES, pruning_algorithm=criterion))
    arguments = transformers.TrainingArguments(
        tmp_path,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulate,
        max_steps=STEPS,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=Examples(), callbacks=[Prune()])
    trainer.train()
    [pruner] = pruners
    assert pruner.steps == STEPS == trainer.state.global_step
    assert masked(pruner) == {"net.0": 0.75, "net.2": 0.75}


# --- Lightning --------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning(accumulate, criterion, tmp_path):
    lightning = library("lightning", "Trainer")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def on_train_start(self):
            self.pruner = AGPPruner(self.net, RULES, self.optimizers(), pruning_algorithm=criterion)
            self.pruner.compress()

        def training_step(self, batch, number):
            x, y = batch
            return F.cross_entropy(self.net(x), y)

        def validation_step(self, batch, number):
            self.net(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    module = Module()
    tensors = [torch.cat(part) for part in zip(*batches(STEPS * accumulate), strict=True)]
    data = torch.utils.data.TensorDataset(*tensors)
    loader = torch.utils.data.DataLoader(data, batch_size=8)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader, loader)
    assert module.pruner.steps == STEPS == trainer.global_step
    assert masked(module.pruner) == {"0": 0.75, "2": 0.75}


def test_fabric():
    lightning = library("lightning", "Fabric")
    fabric = lightning.Fabric(accelerator="cpu")
    model = net()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), 0.01))
    pruner = AGPPruner(model.module, RULES, optimizer, pruning_algorithm="taylorfo")
    pruner.compress()
    for x, y in batches(STEPS):
        optimizer.zero_grad()
        fabric.backward(F.cross_entropy(model(x), y))
        optimizer.step()
    assert pruner.steps == STEPS
    assert masked(pruner) == {"0": 0.75, "2": 0.75}
