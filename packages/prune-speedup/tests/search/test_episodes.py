"""What AMC's agent may be told, and what a config says of its goal; nothing of it needs torch."""

import pytest

from prune_core.errors import ConfigError
from prune_speedup.search.amc.episodes import AgentParams, Episodes, agent_params, first_of
from prune_speedup.search.rules import goal_of


def test_what_the_agent_does_not_know_is_named():
    assert agent_params({"warmup": 5}) == AgentParams(warmup=5)
    with pytest.raises(ConfigError, match="ddpg_params has 'warm_up', which the agent does not"):
        agent_params({"warm_up": 5})


@pytest.mark.parametrize(
    ("said", "options"),
    {
        "lbound is 0.5 and rbound is 0.4": {"lbound": 0.5, "rbound": 0.4},
        "rbound is 1.5": {"rbound": 1.5},
        "reward is 'flops'": {"reward": "flops"},
        "train_episode is 2.5": {"count": 2.5},
    }.items(),
)
def test_what_is_out_of_range_is_refused(said, options):
    with pytest.raises(ConfigError) as caught:
        Episodes(**options)
    assert said in str(caught.value)


def test_settings_are_plain_and_name_a_function():
    def cheap(outcome):
        return 0.0

    settings = Episodes(count=3, reward=cheap).settings
    assert settings["reward"].endswith("cheap")
    assert settings["episodes"] == 3
    assert settings["ddpg_params"]["warmup"] == 100


def test_who_says_how_much_may_be_left():
    rules = [{"op_types": ["Dense"]}]
    assert goal_of(rules, None, None) == (rules, {"flops": 0.5})
    assert goal_of(rules, None, 0.25) == (rules, {"flops": 0.25})
    assert goal_of(rules, {"latency": 0.7}, None) == (rules, {"latency": 0.7})
    told = [{**rules[0], "total_sparsity": 0.75}]
    assert goal_of(told, None, None) == (rules, {"flops": 0.25})
    assert goal_of(told, "params", None) == (rules, {"parameters": 0.25})
    with pytest.raises(ConfigError, match="flops_ratio and the sparsity of the rules both say"):
        goal_of(told, None, 0.5)


def test_the_first_of_several_sizes():
    assert (first_of((5, 3)), first_of(2)) == (5, 2)
