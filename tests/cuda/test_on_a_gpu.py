"""What users do with a model on a GPU: all that tests/device pretends, on a real one."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import prune_core
from prune_core import load_pruned, prune, save_pruned, shrink, units
from prune_filter import L1NormPruner, NMPruner
from prune_lottery import LotteryTicket
from prune_schedule import (
    ADMMPruner,
    AGPPruner,
    AutoCompressPruner,
    NetAdaptPruner,
    SensitivityPruner,
    SimulatedAnnealingPruner,
)

RULES = [{"op_types": ["Conv2d", "Linear"], "sparsity": 0.5}, {"op_names": ["10"], "exclude": True}]


def network(device, width=16):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 5)),
    ).to(device)


@pytest.fixture
def user(gpu):
    """A model, data, and the functions that a user writes."""

    class User:
        device, model = gpu, network(gpu)
        x = torch.randn(8, 3, 8, 8, device=gpu)
        y = torch.randint(0, 5, (8,), device=gpu)

        def loss(self, model):
            return F.cross_entropy(model(self.x), self.y)

        def train(self, model):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            for _ in range(2):
                optimizer.zero_grad()
                self.loss(model).backward()
                optimizer.step()

        @torch.no_grad()
        def evaluate(self, model):
            return float((model(self.x).argmax(1) == self.y).float().mean())

    return User()


def places(masks):
    return {mask.device for tensors in masks.values() for mask in tensors.values()}


BACKWARD = {"calibrate": lambda u: lambda m: u.loss(m).backward()}
FORWARD = {"calibrate": lambda u: lambda m: m(u.x)}
DATA = {"data": lambda u: [u.x]}
ALGORITHMS = {
    **{name: {} for name in ("fpgm", "l1", "l2", "level", "random", "random_weight", "nm")},
    **dict.fromkeys(("group_taylor", "movement", "slim", "snip", "taylorfo"), BACKWARD),
    **dict.fromkeys(("apoz", "hrank", "mean_activation"), FORWARD),
    "grasp": {"calibrate": lambda u: u.loss},
    "synflow": {"dummy_input": lambda u: u.x},
    **dict.fromkeys(("activation_norm", "channel_obs", "flap"), DATA),
    **dict.fromkeys(("alps", "ria", "sparsegpt", "wanda"), DATA),
}
WITH_EXAMPLE = ("group_taylor", "hrank", "activation_norm", "channel_obs", "flap")


def test_no_algorithm_is_missing():
    packages = ("prune-filter", "prune-oneshot")
    registered = {
        name
        for plugin in prune_core.plugins()
        if plugin.distribution in packages
        for name in plugin.provides["pruner"]
    }
    assert registered == set(ALGORITHMS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm(user, algorithm):
    arguments = {name: make(user) for name, make in ALGORITHMS[algorithm].items()}
    if algorithm in WITH_EXAMPLE:
        arguments["example_inputs"] = user.x
    exclude = ["10", "0"] if algorithm == "nm" else ["10"]
    model, masks = prune(user.model, algorithm, sparsity=0.5, exclude=exclude, **arguments)
    assert places(masks) == {user.x.device}
    user.train(model)
    user.model.eval()
    for name, tensors in masks.items():
        weight = user.model.get_submodule(name).weight
        assert (weight[~tensors["weight"].bool()] == 0).all()


@pytest.mark.parametrize("constants", ["keep", "zero", "fold"])
@pytest.mark.filterwarnings("ignore::prune_core.PruneWarning")
def test_shrink_in_each_mode(user, constants):
    _, masks = L1NormPruner(user.model.eval(), RULES[:1]).compress()
    prune_core.unwrap(user.model)
    report = shrink(user.model, user.x, masks, constants=constants, measure=True)
    assert report.parameters[1] < report.parameters[0]
    assert {t.device for t in user.model.state_dict().values()} == {user.x.device}
    before, after = report.running.seconds
    assert before > 0
    assert after > 0


def test_closed_masks_go_through_files(user, tmp_path):
    pruner = L1NormPruner(user.model, RULES, mode="dependency_aware", dummy_input=user.x)
    _, masks = pruner.compress(user.x)
    assert "1" in masks, "the masks are closed over the normalisation behind the convolution"
    user.train(user.model)
    pruner.export_model(tmp_path / "model.pth", tmp_path / "masks.safetensors")
    pruner.unwrap()
    user.model.eval()
    expected = user.model(user.x)
    shrink(user.model, user.x, tmp_path / "masks.safetensors")
    torch.testing.assert_close(user.model(user.x), expected, rtol=1e-3, atol=1e-4)
    save_pruned(user.model, tmp_path / "small.safetensors")
    again = load_pruned(network(user.device), tmp_path / "small.safetensors").eval()
    torch.testing.assert_close(again(user.x), user.model(user.x), rtol=0, atol=0)


@pytest.mark.parametrize("target", [{"flops": 0.5}, {"parameters": 0.5}])
def test_a_budget(user, target):
    prune(user.model, "l1", target=target, example_inputs=user.x, exclude=["10"])
    prune_core.unwrap(user.model)


def test_a_budget_of_measured_latency(real_gpu):
    """A network that is large enough for the card to be busy gets faster by being narrower."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 512, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(512, 512, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 5)),
    ).to(real_gpu)
    x = torch.randn(64, 3, 64, 64, device=real_gpu)
    _, masks = prune(model, "l1", target={"latency": 0.7}, example_inputs=x)
    report = shrink(prune_core.unwrap(model), x, masks, measure=True)
    before, after = report.running.seconds
    assert after < 0.85 * before


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_proof_in_half_precision(gpu, kind):
    if kind == torch.float16 and gpu.type == "cpu":
        pytest.skip("float16 convolutions are for GPUs")
    model = network(gpu).to(kind).eval()
    x = torch.randn(8, 3, 8, 8, device=gpu, dtype=kind)
    _, masks = prune(model, "l1", target={"flops": 0.5}, example_inputs=x, exclude=["10"])
    report = shrink(prune_core.unwrap(model), x, masks)
    assert report.difference is not None
    assert model(x).dtype == kind


def test_mixed_precision_training_of_a_masked_model(user):
    kind = user.device.type
    _, masks = prune(user.model, "l1", sparsity=0.5, example_inputs=user.x, exclude=["10"])
    optimizer = torch.optim.SGD(user.model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(kind)
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast(kind, torch.bfloat16 if kind == "cpu" else torch.float16):
            loss = user.loss(user.model)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    report = shrink(prune_core.unwrap(user.model).eval(), user.x, masks)
    assert report.parameters[1] < report.parameters[0]


def test_mixed_precision_while_sparsity_grows(user):
    """A step that the gradient scaler skips because of overflow does not count."""
    optimizer = torch.optim.SGD(user.model.parameters(), lr=0.01)
    rules = [{"op_types": ["Conv2d"], "final_sparsity": 0.5, "start_step": 0, "end_step": 4}]
    pruner = AGPPruner(user.model, rules, optimizer, "l1")
    pruner.compress()
    for _ in range(6):
        optimizer.zero_grad()
        with torch.autocast(user.device.type, torch.bfloat16):
            loss = user.loss(user.model)
        loss.backward()
        optimizer.step()
    assert all(0.4 < sparsity <= 0.5 for sparsity in pruner.sparsities.values())


def test_the_small_model_compiles(user):
    _, masks = prune(user.model, "l1", target={"flops": 0.5}, example_inputs=user.x, exclude=["10"])
    shrink(prune_core.unwrap(user.model).eval(), user.x, masks)
    # Inductor needs a compiler on the processor; that the graph is whole is shown without one.
    backend = "inductor" if user.device.type == "cuda" else "aot_eager"
    compiled = torch.compile(user.model, fullgraph=True, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(user.x), user.model(user.x), rtol=1e-3, atol=1e-4)


def test_a_captured_step_of_the_small_model(real_gpu):
    """A CUDA graph of a training step replays: nothing in a small model waits for the processor."""
    model = network(real_gpu)
    x = torch.randn(8, 3, 8, 8, device=real_gpu)
    _, masks = prune(model, "l1", target={"flops": 0.5}, example_inputs=x, exclude=["10"])
    model = prune_core.unwrap(model)
    shrink(model, x, masks)
    model.train()
    graphed = torch.cuda.make_graphed_callables(model, (x,))
    graphed(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_two_of_four_runs_on_sparse_matrix_units(real_gpu):
    from torch.sparse import to_sparse_semi_structured

    if torch.cuda.get_device_capability(real_gpu) < (8, 0):
        pytest.skip("the card has no units for 2:4 sparsity")
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 128))
    model = model.to(real_gpu, torch.float16).eval()
    pruner = NMPruner(model, [{"op_types": ["Linear"]}])
    pruner.compress()
    pruner.unwrap()
    x = torch.randn(128, 256, device=real_gpu, dtype=torch.float16)
    expected = model(x)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight = nn.Parameter(to_sparse_semi_structured(layer.weight))
        torch.testing.assert_close(model(x), expected, rtol=1e-2, atol=1e-2)


TINY = {"start_temperature": 30}
SEARCHES = {
    "admm": lambda u: ADMMPruner(
        u.model, RULES, finetune=u.train, iterations=2, training_epochs=1, pruning_algorithm="l1"
    ),
    "annealing": lambda u: SimulatedAnnealingPruner(
        u.model, RULES, u.evaluate, pruning_algorithm="l1", dummy_input=u.x, **TINY
    ),
    "sensitivity": lambda u: SensitivityPruner(u.model, RULES, u.evaluate, finetuner=u.train),
    "netadapt": lambda u: NetAdaptPruner(u.model, RULES, u.train, u.evaluate),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_searches(user, search):
    _, masks = SEARCHES[search](user).compress()
    assert places(masks) == {user.x.device}
    user.train(user.model)


def test_rounds_that_make_small_go_on_from_a_file(user, tmp_path):
    arguments = {"finetune": user.train, "evaluate": user.evaluate, "dummy_input": user.x, **TINY}
    arguments |= {"num_iterations": 2, "admm_num_iterations": 1, "admm_training_epochs": 1}
    arguments |= {"checkpoint": tmp_path / "rounds.pt"}
    AutoCompressPruner(user.model, RULES, **arguments).compress()
    again = network(user.device)
    AutoCompressPruner(again, RULES, **arguments).compress()
    torch.testing.assert_close(again.eval()(user.x), user.model.eval()(user.x), rtol=0, atol=0)


def test_lottery_tickets_go_on_from_a_file(user, tmp_path):
    def rounds(model):
        lottery = LotteryTicket(
            model, RULES, rounds=2, rewind="early:1", checkpoint=tmp_path / "lottery.pt"
        )

        def train(model, this_round):
            for _ in this_round.steps(2):
                user.train(model)

        lottery.run(train=train, evaluate=user.evaluate)
        return model.state_dict()

    first, again = rounds(user.model), rounds(network(user.device))
    assert all(first[name].equal(again[name]) for name in first)


def test_one_process_of_a_group(user, tmp_path):
    """NCCL on a GPU, gloo on the processor: a masked model trains under DDP."""
    backend = "nccl" if user.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        rules = [{"op_types": ["Conv2d"], "final_sparsity": 0.5, "end_epoch": 2}]
        pruner = AGPPruner(user.model, rules, pruning_algorithm="l1")
        pruner.compress()
        parallel = nn.parallel.DistributedDataParallel(user.model)
        for epoch in range(3):
            pruner.update_epoch(epoch)
            user.train(parallel)
        assert set(pruner.sparsities.values()) == {0.5}
    finally:
        dist.destroy_process_group()


def test_peak_memory_of_a_large_model(gpu):
    """Pruning and shrinking need no more than five times the weights, for a model in bfloat16.

    A GPU gets a billion parameters; the processor, where nothing is measured, a million.
    """
    width, depth = (8192, 8) if gpu.type == "cuda" else (256, 8)
    with gpu:
        layers = [nn.Linear(width, 2 * width, bias=False), nn.ReLU()]
        for _ in range(depth // 2 - 1):
            layers += [nn.Linear(2 * width, width, bias=False), nn.ReLU()]
            layers += [nn.Linear(width, 2 * width, bias=False), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(2 * width, 10)).eval()
        x = torch.randn(1, width)
    model = model.to(torch.bfloat16)
    x = x.to(torch.bfloat16)
    weights = sum(p.nbytes for p in model.parameters())
    if gpu.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        resting = torch.cuda.memory_allocated()
    last = str(len(model) - 1)
    _, masks = prune(model, "l1", sparsity=0.5, example_inputs=x, exclude=[last])
    report = shrink(prune_core.unwrap(model), x, masks)
    assert report.parameters[1] < 0.6 * report.parameters[0]
    if gpu.type == "cuda":
        # The proof keeps the whole model beside the small one, in float32 for half precision.
        assert torch.cuda.max_memory_allocated() - resting < 5 * weights


def test_units_of_an_encoder(gpu):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(gpu).eval()
    x = torch.randn(2, 10, 16, device=gpu)
    found = units(model, x)
    half = [found.unit(label) for g in found.groups for label in g.labels[1 : len(g) : 2]]
    report = shrink(model, x, units=half)
    assert report.parameters[1] < report.parameters[0]
