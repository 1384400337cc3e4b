"""AMC in any framework: reinforcement learning for the sparsity of each layer.

environment  the layers, one after the other; the budget bounds what may be done
│ what is seen            ▲ the ratio that a layer keeps
▼                         │
agent        DDPG; the only module in here that needs torch
▲ reward: what the user's score is worth
│
episodes     the walk that a search goes through, one plan for each episode
"""
