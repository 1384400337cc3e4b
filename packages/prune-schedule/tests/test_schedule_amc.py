"""AMC: what the agent sees, may do and is paid, by hand; and that it learns."""

import sys
import warnings
from math import log

import pytest
import torch
from torch import nn

from prune_core import ConfigError, MissingDependencyError, PruneWarning
from prune_core.testing import MLP, check_pruner
from prune_schedule import AMCPruner
from prune_speedup.search.amc.reward import Outcome, as_reward

pytest.importorskip("stable_baselines3", reason="AMC's agent is that of stable-baselines3")

RULES = [{"op_types": ["Linear"]}]
X = torch.rand(1, 4, generator=torch.Generator().manual_seed(1))


def chain():
    """Layers of 4 × 8, 8 × 10 and 10 × 2 weights: 132, and 2 · 132 FLOPs for one input."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 10, bias=False), nn.ReLU()),
        nn.Linear(10, 2, bias=False),
    )


def lost(model):
    return [1 - m.masks["weight"].float().mean().item() for m in model if hasattr(m, "masks")]


def spare_the_first(model):
    """Lose as much as the first layer does."""
    return 1.0 - lost(model)[0]


def amc(model=None, evaluator=spare_the_first, rules=RULES, **arguments):
    arguments = {
        "dummy_input": X,
        "pruning_algorithm": "units",
        "train_episode": 12,
        "warmup": 4,
        "hidden1": 16,
        "hidden2": 16,
        **arguments,
    }
    return AMCPruner(model or chain(), rules, evaluator, **arguments)


def env_of(pruner):
    return pruner.environment()


def acted(*ratios):
    return [torch.tensor([ratio]).numpy() for ratio in ratios]


# --- by hand ----------------------------------------------------------------------------------


def test_an_episode_by_hand():
    env = env_of(amc(flops_ratio=0.5))
    first, _ = env.reset()
    # Of the two layers each of the seven features that differ is 0 and 1. Nothing is reduced; the
    # second layer has 80 of 132 weights; and nothing has been done.
    assert first.tolist() == pytest.approx([0, 0, 0, 0, 0, 0, 0, 0, 80 / 132, 1])
    half, whole = acted(0.5, 1.0)
    second, reward, done, _, info = env.step(half)
    # 4 of 8 channels leave 16 + 40 + 20 of 132
    assert second.tolist() == pytest.approx([1, 0, 1, 1, 0, 0, 1, 1 - 76 / 132, 0, 0.5])
    assert (reward, done, info) == (0.0, False, {"kept": 0.5})
    *_, done, _, info = env.step(whole)
    # It would keep all 10 channels, but only with 8 of them no more than 66 are left: 16 + 32 + 16
    assert done
    assert info["kept"] == pytest.approx(0.8)
    assert env.sparsities == pytest.approx({"0": 0.5, "2": 0.2, "4": 0.0})


def test_a_layer_loses_more_where_the_others_could_not_make_up_for_it():
    env = env_of(amc(flops_ratio=0.4, lbound=0.5))
    env.reset()
    *_, info = env.step(acted(1.0)[0])
    # With 5 of 10 channels in the second layer, n of the first leave 9 · n + 10 of 132; at most
    # 52.8 means n = 4.
    assert info["kept"] == 0.5


def test_what_a_convolution_looks_like():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 1)
    )
    rules = [{"op_types": ["Conv2d"]}]
    env = env_of(amc(model, rules=rules, dummy_input=torch.rand(1, 3, 16, 16)))
    # in 3 and 8, out 8 and 4, stride 2 and 1, kernels of 5 and 3, 600 and 288 weights
    assert env.fixed.tolist() == [[0, 0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0, 0]]


def test_rewards_by_hand():
    outcome = Outcome(score=0.9, perfect=1.0, flops=1000, parameters=50)
    assert as_reward("acc_reward")(outcome) == pytest.approx(-0.1)
    assert as_reward("acc_flops_reward")(outcome) == pytest.approx(-0.1 * log(1000))
    assert as_reward("acc_params_reward")(outcome) == pytest.approx(-0.1 * log(50))
    per_cent = Outcome(score=90.0, perfect=100.0, flops=1000, parameters=50)
    assert per_cent.error == pytest.approx(0.1)
    assert as_reward(len) is len
    better = Outcome(score=90.0, perfect=1.0, flops=1000, parameters=50)
    assert as_reward("acc_reward")(better) == pytest.approx(
        89
    )  # is in the right order all the same
    for reward in ("acc_flops_reward", "acc_params_reward"):
        with pytest.raises(ConfigError, match="better than perfect=1.*give perfect=100"):
            as_reward(reward)(better)


def test_a_reward_of_ones_own_sees_the_model_that_is_left():
    seen = []

    def reward(outcome):
        seen.append(outcome)
        return outcome.score

    result = amc(reward=reward, train_episode=3).run()
    assert [outcome.score for outcome in seen] == [t["score"] for t in result.trials]
    for outcome, trial in zip(seen, result.trials, strict=True):
        assert outcome.flops == 2 * outcome.parameters  # a weight is multiplied and added once
        assert outcome.flops == pytest.approx(trial["left"]["flops"] * 264)


# --- the search -------------------------------------------------------------------------------


def test_it_learns_what_the_layers_are_worth():
    pruner = amc(train_episode=100, warmup=20, lr_a=0.005, lr_c=0.025, init_delta=0.3)
    result = pruner.run()
    scores = [trial["score"] for trial in result.trials]
    at_random, learnt = sum(scores[:20]) / 20, sum(scores[-20:]) / 20
    assert learnt > at_random + 0.15
    assert result.score == max(scores)
    assert all(trial["left"]["flops"] <= 0.5 for trial in result.trials)


def test_the_environment_is_one():
    from stable_baselines3.common.env_checker import check_env

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "We recommend you to use a symmetric")
        check_env(env_of(amc()))


def test_the_call_of_the_first_releases():
    seen = []
    loader = [(torch.rand(8, 4), torch.zeros(8))]

    def evaluator(val_loader, model):
        seen.append(val_loader)
        return spare_the_first(model)

    with pytest.warns(PruneWarning, match="channel_round=8 has no effect"):
        pruner = AMCPruner(
            chain(),
            RULES,
            evaluator,
            loader,
            flops_ratio=0.6,
            train_episode=2,
            base_algo="units",
            channel_round=8,
        )
    _, masks = pruner.compress()
    assert seen == [loader, loader]
    assert pruner.target == {"flops": 0.6}
    assert pruner.dummy_input.shape == (1, 4)
    assert set(masks) == {"0", "2", "4"}


def test_the_call_of_later_releases(tmp_path):
    rules = [{"op_types": ["Linear"], "total_sparsity": 0.4, "max_sparsity_per_layer": 0.7}]
    pruner = AMCPruner(
        *(3, chain(), rules, X, spare_the_first, "units"),
        log_dir=tmp_path,
        ddpg_params={"hidden1": 16, "warmup": 1},
        target="params",
    )
    result = pruner.run()
    assert pruner.target == {"parameters": pytest.approx(0.6)}
    assert len(result.trials) == 3
    assert all(max(trial["sparsities"].values()) <= 0.7 for trial in result.trials)
    assert pruner.get_best_result()[3] == result.score
    assert (tmp_path / "best_result" / "masks.pth").exists()


@pytest.mark.parametrize("seed", [-1, 2**70])
def test_any_whole_number_is_a_seed(seed):
    assert amc(train_episode=2, seed=seed).run().complete


def test_a_score_can_be_minimised():
    up = amc().run()
    down = amc(evaluator=lambda m: -spare_the_first(m), optimize_mode="minimize", perfect=-1).run()
    assert down.sparsities == up.sparsities
    assert down.score == -up.score


def test_an_episode_that_fails_is_told_and_the_search_goes_on():
    answers = iter([0.3, float("nan"), 0.5])
    pruner = amc(evaluator=lambda model: next(answers, 0.4))
    with pytest.warns(PruneWarning, match="the score is nan"):
        result = pruner.run()
    assert result.trials[1]["problem"] == "the score is nan"
    assert result.score == 0.5
    assert result.complete


def test_ctrl_c_ends_with_the_best_so_far():
    calls = []

    def evaluate(model):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return spare_the_first(model)

    result = amc(evaluator=evaluate).run()
    assert not result.complete
    assert result.score == max(trial["score"] for trial in result.trials)


def test_ctrl_c_ends_with_what_the_best_was_tuned_to():
    model, calls = chain(), []

    def finetune(model):
        with torch.no_grad():
            model[4].module.weight.add_(torch.rand(()))

    def evaluate(model):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return model[4].module.weight.mean().item()

    result = amc(model, evaluate, finetuner=finetune).run()
    assert not result.complete
    assert model[4].module.weight.mean().item() == result.score


def test_fine_tuning_begins_with_the_same_weights_in_each_episode():
    seen, model = [], chain()

    def finetune(model):
        weight = model[4].module.weight
        seen.append(weight.sum().item())
        with torch.no_grad():
            weight.add_(1.0)

    before = model[4].weight.sum().item()
    amc(model, finetuner=finetune, train_episode=4).run()
    assert seen == pytest.approx([before] * 4)
    assert model[4].module.weight.sum().item() == pytest.approx(before + 20)


@pytest.mark.parametrize("stop_at", [1, 3, 7, 11])
@pytest.mark.parametrize("kept", ["checkpoint", "experiment_data_dir"])
def test_it_goes_on_where_it_was(kept, stop_at, tmp_path):
    if kept == "experiment_data_dir":
        pytest.importorskip("optuna", reason="experiment_data_dir keeps an Optuna study")

    def run(place, evaluations=10_000):
        left = iter(range(evaluations))

        def evaluate(model):
            if next(left, None) is None:
                raise SystemExit
            return spare_the_first(model) + 0.01 * torch.rand(()).item()

        pruner = amc(evaluator=evaluate, **{kept: place})
        return pruner.run(), pruner.agent

    whole, agent = run(tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", stop_at)
    torch.manual_seed(99)
    again, learnt = run(tmp_path / "run")
    assert [t["score"] for t in again.trials] == [t["score"] for t in whole.trials]
    assert [t["sparsities"] for t in again.trials] == [t["sparsities"] for t in whole.trials]
    # It has learnt the history once more, bit for bit.
    for one, other in (
        (learnt.ddpg.actor, agent.ddpg.actor),
        (learnt.ddpg.critic, agent.ddpg.critic),
    ):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_agent_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    model = chain()
    with pytest.raises(MissingDependencyError, match=r"pip install 'prune-schedule\[amc\]'"):
        amc(model)
    assert isinstance(model[0], nn.Linear)


@pytest.mark.parametrize(
    ("said", "arguments"),
    {
        "lbound is 0.5 and rbound is 0.4": {"lbound": 0.5, "rbound": 0.4},
        "reward is 'acc_flop_reward'; it must be one of": {"reward": "acc_flop_reward"},
        "train_episode is 0": {"train_episode": 0},
        "give it one: dummy_input=": {"dummy_input": None},
        "ddpg_params has 'taus', which": {"ddpg_params": {"taus": 1}},
        "both say what may be left": {"flops_ratio": 0.5, "target": {"flops": 0.5}},
        "flops_ratio and the sparsity of the rules both say": {
            "flops_ratio": 0.5,
            "rules": [{"sparsity": 0.5, "op_types": ["Linear"]}],
        },
        "target has 'time'; a budget is one of": {"target": {"time": 0.5}},
        "finetune is 3": {"finetuner": 3},
        "where every layer keeps the least that it may 0.348 is left; lower lbound (0.5)": {
            "lbound": 0.5,
            "flops_ratio": 0.2,
        },
    }.items(),
)
def test_a_mistake_is_named(said, arguments):
    model = chain()
    with pytest.raises(ConfigError) as caught:
        amc(model, **arguments).run()
    assert said in str(caught.value)


def test_it_keeps_what_every_pruner_promises():
    check_pruner(
        AMCPruner,
        model=MLP,
        pruning_algorithm="units",
        evaluator=lambda model: 1.0,
        dummy_input=torch.rand(2, 3, 8, 8),
        train_episode=2,
        hidden1=8,
        hidden2=8,
        sparsities=(0.05,),
        skip=["sparsity"],  # which is that of the FLOPs of all layers together
    )
