"""The quick start of NNI's users, step by step, with nothing changed but the imports."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.optim import SGD

device = torch.device("cpu")


class TorchModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, 1)
        self.conv2 = nn.Conv2d(6, 16, 5, 1)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2, 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=1)


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return F.interpolate(images, size=28), torch.tensor(labels)


@pytest.fixture
def trainer(digits):
    images, labels = digits

    def train(model, optimizer, criterion):
        model.train()
        for batch in torch.randperm(1280).split(64):
            optimizer.zero_grad()
            criterion(model(images[batch]), labels[batch]).backward()
            optimizer.step()

    return train


@pytest.fixture
def evaluator(digits):
    images, labels = digits

    def evaluate(model):
        model.eval()
        with torch.no_grad():
            return (model(images[1280:]).argmax(1) == labels[1280:]).float().mean().item()

    return evaluate


WRAPPED = """TorchModel(
  (conv1): PrunerModuleWrapper(
    (module): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))
  )
  (conv2): PrunerModuleWrapper(
    (module): Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))
  )
  (fc1): PrunerModuleWrapper(
    (module): Linear(in_features=256, out_features=120, bias=True)
  )
  (fc2): PrunerModuleWrapper(
    (module): Linear(in_features=120, out_features=84, bias=True)
  )
  (fc3): Linear(in_features=84, out_features=10, bias=True)
)"""
SMALL = """TorchModel(
  (conv1): Conv2d(1, 3, kernel_size=(5, 5), stride=(1, 1))
  (conv2): Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))
  (fc1): Linear(in_features=128, out_features=60, bias=True)
  (fc2): Linear(in_features=60, out_features=42, bias=True)
  (fc3): Linear(in_features=42, out_features=10, bias=True)
)"""


def test_pretrain_prune_speed_up_and_fine_tune(trainer, evaluator, capsys):
    torch.manual_seed(0)
    model = TorchModel().to(device)
    optimizer = SGD(model.parameters(), 5e-2, momentum=0.9)
    criterion = F.nll_loss
    for _ in range(3):
        trainer(model, optimizer, criterion)
    dense = evaluator(model)

    config_list = [
        {"sparsity_per_layer": 0.5, "op_types": ["Linear", "Conv2d"]},
        {"exclude": True, "op_names": ["fc3"]},
    ]
    from prune_filter import L1NormPruner

    pruner = L1NormPruner(model, config_list)
    assert str(model) == WRAPPED

    _, masks = pruner.compress()
    for name, mask in masks.items():
        print(name, " sparsity : ", "{:.2}".format(mask["weight"].sum() / mask["weight"].numel()))
    assert capsys.readouterr().out.splitlines() == [
        f"{name}  sparsity :  0.5" for name in ("conv1", "conv2", "fc1", "fc2")
    ]

    pruner._unwrap_model()
    for name in ("conv1", "conv2", "fc1", "fc2"):
        weight = model.get_submodule(name).weight.flatten(1)
        assert int((weight == 0).all(1).sum()) == len(weight) // 2

    from prune_core.speedup import ModelSpeedup

    ModelSpeedup(model, torch.rand(3, 1, 28, 28).to(device), masks).speedup_model()
    assert str(model) == SMALL

    optimizer = SGD(model.parameters(), 5e-2, momentum=0.9)
    for _ in range(3):
        trainer(model, optimizer, criterion)
    assert evaluator(model) > dense - 0.1


# --- the forms of the lists of pruners ------------------------------------------------------


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 20, 3)
        self.bn = nn.BatchNorm2d(20)
        self.fc = nn.Linear(20, 10)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.conv(x))).mean((2, 3)))


def test_level_of_all_layers():
    from prune_filter import LevelPruner

    config_list = [{"sparsity": 0.8, "op_types": ["default"]}]
    pruner = LevelPruner(Network(), config_list)
    pruner.compress()
    assert pruner.masks["fc"]["weight"].float().mean() == pytest.approx(0.2)


def test_slim_without_training_and_its_exports(tmp_path):
    from prune_core import apply_compression_results
    from prune_filter import SlimPruner

    model = Network()
    nn.init.uniform_(model.bn.weight)
    configure_list = [{"sparsity": 0.7, "op_types": ["BatchNorm2d"]}]
    pruner = SlimPruner(model, configure_list)
    pruner.compress()
    assert int(pruner.masks["bn"]["weight"].sum()) == 6
    weights, masks = tmp_path / "pruned.pth", tmp_path / "mask.pth"
    pruner.export_model(model_path=weights, mask_path=masks)
    fresh = Network()
    fresh.load_state_dict(torch.load(weights, weights_only=True))
    apply_compression_results(fresh, masks)
    assert int((fresh.bn.weight == 0).sum()) == 14


@pytest.mark.parametrize("name", ["FPGMPruner", "L1FilterPruner", "L2FilterPruner"])
def test_filters_by_their_weights(name):
    import prune_filter

    config_list = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = getattr(prune_filter, name)(Network(), config_list)
    pruner.compress()
    assert int(pruner.masks["conv"]["bias"].sum()) == 10


@pytest.mark.parametrize(
    "name",
    [
        "ActivationAPoZRankFilterPruner",
        "ActivationMeanRankFilterPruner",
        "TaylorFOWeightFilterPruner",
    ],
)
def test_filters_by_what_the_following_training_shows(name, trainer):
    import prune_filter

    model = Network()
    config_list = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = getattr(prune_filter, name)(model, config_list, statistics_batch_num=1)
    pruner.compress()
    trainer(model, SGD(model.parameters(), 1e-2), F.cross_entropy)
    assert int(pruner.masks["conv"]["bias"].sum()) == 10


def test_rules_are_applied_one_by_one():
    from prune_filter import LevelPruner

    config_list = [
        {"sparsity": 0.8, "op_types": ["default"]},
        {"sparsity": 0.6, "op_names": ["conv"]},
        {"exclude": True, "op_names": ["fc"]},
    ]
    _, masks = LevelPruner(Network(), config_list).compress()
    assert list(masks) == ["conv"]
    assert int(masks["conv"]["weight"].sum()) == 72


@pytest.mark.parametrize(
    "name", ["ActivationAPoZRankPruner", "ActivationMeanRankPruner", "TaylorFOWeightPruner"]
)
def test_the_form_with_a_trainer(name, trainer):
    import prune_filter

    model = Network()
    config_list = [{"sparsity": 0.5, "op_types": ["Conv2d"]}]
    pruner = getattr(prune_filter, name)(
        model, config_list, trainer, SGD(model.parameters(), 1e-2), F.cross_entropy, 5
    )
    _, masks = pruner.compress()
    assert int(masks["conv"]["bias"].sum()) == 10
