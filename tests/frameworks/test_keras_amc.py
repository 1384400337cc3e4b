"""AMC for Keras: an agent whose networks are torch's, whatever Keras runs on."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs both frameworks")
pytest.importorskip("stable_baselines3", reason="AMC's agent is that of stable-baselines3")

RULES = [{"op_names": ["a", "b"]}]
SIZES = {"a": (4, 8), "b": (8, 10), "head": (10, 2)}
SMALL = {"hidden1": 16, "hidden2": 16, "warmup": 4}


def chain():
    """Layers of 4 × 8, 8 × 10 and 10 × 2 weights: 132, and 2 · 132 FLOPs for one input."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((4,))])
    for name, (_, outputs) in SIZES.items():
        model.add(keras.layers.Dense(outputs, use_bias=False, name=name))
    return model


def spare_the_first(model):
    """Lose as much as the first layer does."""
    from prune_tf import masks_of

    return float(masks_of(model)["a"]["kernel"].mean())


def amc(model=None, evaluate=spare_the_first, rules=RULES, **options):
    from prune_tf import AMCPruner

    options = {"train_episode": 12, "ddpg_params": SMALL, **options}
    return AMCPruner(chain() if model is None else model, rules, evaluate, **options)


def test_each_episode_meets_the_budget_and_the_best_is_in_force():
    from prune_tf import shrink

    model = chain()
    search = amc(model)
    _, masks = search.compress()
    assert len(search.history) == 12
    for trial in search.history:
        a, b = (round(n * (1 - trial["sparsities"][name])) for name, n in (("a", 8), ("b", 10)))
        assert 4 * a + a * b + b * 2 <= 66
    assert search.best_score == max(trial["score"] for trial in search.history)
    assert masks["a"]["kernel"].mean() == pytest.approx(search.best_score)
    report = shrink(model)
    assert report.flops[1] / report.flops[0] <= 0.5


def test_it_learns_what_the_layers_are_worth():
    params = SMALL | {"warmup": 20, "lr_a": 0.005, "lr_c": 0.025, "init_delta": 0.3}
    search = amc(train_episode=100, ddpg_params=params)
    search.compress()
    scores = [trial["score"] for trial in search.history]
    assert sum(scores[-20:]) / 20 > sum(scores[:20]) / 20 + 0.1


def test_what_a_convolution_looks_like():
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(8, 5, strides=2, name="a"),
            layers.Conv2D(4, 3, name="b"),
            layers.Conv2D(6, 1, name="head"),
        ]
    )
    search = amc(model, lambda model: 1.0, train_episode=1)
    search.compress()
    # in 3 and 8, out 8 and 4, stride 2 and 1, kernels of 5 and 3, 600 and 288 weights
    fixed = search.environment().fixed
    assert fixed.tolist() == [[0, 0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0, 0]]


def test_the_agent_sees_and_does_the_same_as_for_torch():
    import torch
    from torch import nn

    from prune_schedule import AMCPruner as InTorch

    in_keras, in_torch = chain(), nn.Sequential()
    for name, (inputs, outputs) in SIZES.items():
        in_torch.add_module(name, nn.Linear(inputs, outputs, bias=False))
        weight = np.asarray(in_keras.get_layer(name).get_weights()[0])
        in_torch.get_submodule(name).weight.data = torch.from_numpy(weight.T.copy())

    def score(model):
        return model.a.masks["weight"].double().mean().item()

    options = {"train_episode": 4, "ddpg_params": SMALL, "seed": 3}
    first = InTorch(in_torch, RULES, score, dummy_input=torch.ones(1, 4), **options)
    first.compress()
    second = amc(in_keras, **options)
    second.compress()
    np.testing.assert_allclose(first.environment().fixed, second.environment().fixed)
    # Nothing has been learnt yet: what is drawn is the same, and so is what the budget makes of it.
    tried = [[each["sparsities"] for each in made] for made in (first.trials, second.history)]
    assert tried[0] == tried[1]


@pytest.mark.parametrize("kept", ["checkpoint", "experiment_data_dir"])
def test_it_goes_on_where_it_was(kept, tmp_path):
    def run(place, stop=None):
        calls = []

        def evaluate(model):
            if len(calls) == stop:
                raise SystemExit
            calls.append(1)
            return spare_the_first(model)

        search = amc(evaluate=evaluate, **{kept: tmp_path / place})
        search.compress()
        return search, len(calls)

    whole, _ = run("whole")
    with pytest.raises(SystemExit):
        run("run", 7)
    again, more = run("run")
    assert more == 5
    assert again.history == whole.history
    for one, other in zip(
        again.agent.ddpg.actor.parameters(), whole.agent.ddpg.actor.parameters(), strict=True
    ):
        assert (one == other).all()


def test_the_best_has_the_weights_of_its_fine_tuning():
    begins = []

    def finetune(model):
        weight = model.get_layer("head").kernel
        begins.append(float(weight.numpy().sum()))
        weight.assign_add(np.full(weight.shape, np.random.uniform(), "float32"))

    def last(model):
        return float(model.get_layer("head").kernel.numpy().mean())

    model = chain()
    search = amc(model, last, finetune=finetune, train_episode=5)
    search.compress()
    assert begins == [begins[0]] * 5
    assert last(model) == search.best_score == max(t["score"] for t in search.history)


@pytest.mark.parametrize(
    ("said", "options"),
    {
        "lbound is 0.5 and rbound is 0.4": {"lbound": 0.5, "rbound": 0.4},
        "reward is 'acc_flop_reward'; it must be one of": {"reward": "acc_flop_reward"},
        "train_episode is 0": {"train_episode": 0},
        "ddpg_params has 'taus', which": {"ddpg_params": {"taus": 1}},
        "both say what may be left": {"flops_ratio": 0.5, "target": {"flops": 0.5}},
        "lower lbound (0.5)": {"lbound": 0.5, "flops_ratio": 0.2},
    }.items(),
)
def test_a_mistake_is_named(said, options):
    from prune_core import ConfigError
    from prune_tf import masks_of

    model = chain()
    with pytest.raises(ConfigError) as caught:
        amc(model, **options).compress()
    assert said in str(caught.value)
    assert not masks_of(model)
