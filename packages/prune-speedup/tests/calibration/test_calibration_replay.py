"""Steps that are run by themselves see what they see when the model runs."""

import pytest
import torch
from handing_on import (
    SharedCache,
    Skipping,
    Sneaky,
    Transformer,
    Twice,
    convolutions,
    layers_of,
)
from torch import nn

from prune_core import ConfigError, PruneError, PruneWarning
from prune_toolkit.calibration.calibrate import Enough, first_call, limited
from prune_toolkit.calibration.replay import Replay
from prune_toolkit.calibration.steps import as_example, find_steps
from prune_toolkit.calibration.store import keeper
from prune_toolkit.running.restore import left_as_it_was, only_run


def words(*shape):
    return torch.randint(9, shape, generator=torch.Generator().manual_seed(sum(shape)))


MODELS = {
    "transformer": (Transformer, [words(2, 3), words(3, 3), words(2, 5)]),
    "with a cache for each layer": (lambda: Transformer(cached=True), [words(2, 3), words(2, 4)]),
    "skipping": (Skipping, [torch.randn(3, 4), torch.randn(2, 4)]),
    "twice": (Twice, [torch.randn(3, 4)]),
    "convolutions": (convolutions, [torch.randn(2, 2, 8, 8), torch.randn(1, 2, 8, 8)]),
}


def replay_of(model, batches, *, dense=False, keep="device", limit=None, steps=None):
    def calibrate(model):
        for batch in batches:
            model(batch)

    example = as_example(model, *first_call(model, calibrate))
    replay = Replay(
        model, steps or find_steps(model, layers_of(model), example), keeper(keep), dense=dense
    )
    replay.capture(calibrate, limit)
    return replay


def inputs_of(layers, run):
    """What goes into each layer while something runs."""
    seen = {name: [] for name in layers}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0]))
        for name, layer in layers.items()
    ]
    run()
    for handle in handles:
        handle.remove()
    return seen


def same(found, expected):
    for name, tensors in expected.items():
        assert len(found[name]) == len(tensors), name
        for a, b in zip(found[name], tensors, strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize("keep", ["device", "cpu", "folder"])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_gets_what_it_gets_in_the_model(name, keep, tmp_path):
    torch.manual_seed(0)
    make, batches = MODELS[name]
    model = make().eval()
    with torch.no_grad():
        expected = inputs_of(layers_of(model), lambda: [model(batch) for batch in batches])
    replay = replay_of(model, batches, keep=str(tmp_path) if keep == "folder" else keep)
    found = {}
    for place, step in enumerate(replay.steps):
        replay.reach(place)
        mine = {layer: model.get_submodule(layer) for layer in step.layers}
        replay.run(place)  # a step may be run as often as it takes
        found |= inputs_of(mine, lambda place=place: replay.run(place))
        replay.finish(place)
    same(found, expected)
    assert not list(tmp_path.iterdir())  # what is kept there has no name
    assert not replay._batches[0].values
    assert not replay._batches[0].constants


def test_a_step_sees_what_the_changed_ones_before_it_give():
    torch.manual_seed(0)
    model, batch = Transformer().eval(), words(2, 3)
    replay = replay_of(model, [batch])
    replay.run(0)
    with torch.no_grad():
        model.layers[0].down.weight.zero_()
        expected = inputs_of(layers_of(model), lambda: model(batch))
    replay.finish(0)
    for place, layer in ((1, "layers.1.up"), (2, "layers.2.up"), (3, "head")):
        replay.reach(place)
        found = inputs_of({layer: model.get_submodule(layer)}, lambda p=place: replay.run(p))
        assert torch.equal(found[layer][0], expected[layer][0])
        replay.finish(place)


def test_a_dense_replay_sees_what_the_model_gave_before():
    torch.manual_seed(0)
    model, batch = Transformer().eval(), words(2, 3)
    with torch.no_grad():
        expected = inputs_of(layers_of(model), lambda: model(batch))
    replay = replay_of(model, [batch], dense=True)
    for place, step in enumerate(replay.steps):
        mine = {layer: model.get_submodule(layer) for layer in step.layers}
        found = inputs_of(mine, lambda place=place: replay.run(place, keep=True))
        assert all(torch.equal(found[name][0], expected[name][0]) for name in found)
        with torch.no_grad():
            for layer in mine.values():
                layer.weight.zero_()
        replay.finish(place, keep=False)


def test_a_step_is_left_when_a_module_is_about_to_run():
    model = Transformer().eval()
    replay = replay_of(model, [words(2, 3)])
    layer = model.layers[0]
    seen = inputs_of({"up": layer.up, "down": layer.down}, lambda: replay.run(0, until=layer.down))
    assert len(seen["up"]) == 1
    assert len(seen["down"]) == 1  # its own hook comes before the one that leaves
    ran = []
    handle = layer.down.register_forward_hook(lambda *_: ran.append(1))
    replay.run(0, until=layer.down)
    handle.remove()
    assert not ran


def test_a_model_that_hands_things_on_secretly_is_taken_as_a_whole():
    torch.manual_seed(0)
    model, batches = Sneaky().eval(), [torch.randn(2, 4), torch.randn(2, 4)]
    with pytest.warns(PruneWarning, match="cannot be calibrated part by part: 'b'"):
        replay = replay_of(model, batches)
    assert [step.name for step in replay.steps] == [""]
    with torch.no_grad():
        expected = inputs_of(layers_of(model), lambda: [model(batch) for batch in batches])
    same(inputs_of(layers_of(model), lambda: replay.run(0)), expected)


def test_an_object_that_all_layers_write_into_is_noticed():
    with pytest.warns(PruneWarning, match="part by part: 'layers.1'"):
        replay = replay_of(SharedCache().eval(), [words(2, 3)])
    assert [step.name for step in replay.steps] == [""]


def test_the_mode_of_the_model_is_eval_meanwhile_and_comes_back():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batch = torch.randn(3, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replay = replay_of(model, [batch, batch])
    for place in range(len(replay.steps)):
        replay.run(place)
        replay.finish(place)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_autocast_around_the_calibration_is_around_the_steps_as_well():
    model, batch = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval(), torch.randn(3, 4)

    def calibrate(model):
        with torch.autocast("cpu", torch.bfloat16):
            model(batch)

    replay = Replay(model, find_steps(model, layers_of(model), (batch,)))
    replay.capture(calibrate)
    replay.finish(0)
    assert inputs_of({"1": model[1]}, lambda: replay.run(1))["1"][0].dtype == torch.bfloat16


def test_a_calibration_may_call_backward_and_its_gradients_go():
    model, batch = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(3, 4)
    model(batch).sum().backward()
    gradient = model[0].weight.grad.clone()
    replay = Replay(model, find_steps(model, layers_of(model), (batch,)))
    replay.capture(lambda model: model(batch).square().sum().backward())
    assert len(replay) == 1
    assert torch.equal(model[0].weight.grad, gradient)


def test_a_calibration_that_trains_is_refused():
    model, batch = nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 4)

    def train(model):
        model(batch).sum().backward()
        torch.optim.SGD(model.parameters(), 0.1).step()

    with pytest.raises(PruneError, match="has changed parameters"):
        Replay(model, find_steps(model, layers_of(model), (batch,))).capture(train)


def test_as_many_batches_as_are_asked_for():
    model, batches = Transformer().eval(), [words(2, 3)] * 5
    assert len(replay_of(model, batches, limit=2)) == 2
    seen = []
    handle = model.register_forward_pre_hook(lambda *_: seen.append(1))
    limited(lambda model: [model(batch) for batch in batches], 3)(model)
    handle.remove()
    assert len(seen) == 3 + 1  # the one that stops it is seen by a hook that came before


def test_a_calibration_that_never_runs_the_model_is_refused():
    model = Transformer()
    with pytest.raises(PruneError, match="never ran the model"):
        first_call(model, lambda model: None)
    replay = Replay(model, find_steps(model, layers_of(model), (words(2, 3),)))
    with pytest.raises(PruneError, match="never ran the model"):
        replay.capture(lambda model: None)


def test_two_sets_of_data_have_two_fingerprints():
    model = Transformer().eval()
    found = {replay_of(model, [words(2, size)]).fingerprint() for size in (3, 3, 4)}
    assert len(found) == 2


def test_a_place_to_keep_things_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"keep is 'nowhere'.*'device', 'cpu', or a folder"):
        keeper("nowhere")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_files_hold_every_type(dtype, tmp_path):
    tensor = torch.arange(6).view(2, 3).to(dtype)
    kept = keeper(tmp_path)(tensor.t())
    assert kept.dtype == dtype
    assert torch.equal(kept, tensor.t())
    assert keeper(tmp_path)(torch.empty(0, 3, dtype=dtype)).shape == (0, 3)


def test_a_model_is_put_back_after_a_training():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with left_as_it_was(model, optimizer):
        model(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
        model.eval()
    assert model.training
    assert model[0].weight.grad is None
    assert not optimizer.state
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_leaving_early_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(2))

    def leave():
        with only_run(model):
            model[0].running_mean.add_(1)
            raise Enough

    with pytest.raises(Enough):
        leave()
    assert model.training
    assert not model[0].running_mean.any()
