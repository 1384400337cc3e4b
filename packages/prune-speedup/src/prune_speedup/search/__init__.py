"""What searches for the sparsity of each layer share, whatever the framework: all but tensors.

A search is a walk among plans, `{layer: sparsity}`. Whoever drives it makes masks, has the user's
function score the model, and sends the score back; how, only a framework knows:

    walks       annealing  netadapt  sensitivity  amc/  which plan comes next
       │ plans, kept within                                   ▲
       ▼                                                      │ scores
    budgets     weights  planned  pieces                a framework's runner:
       │ how much each layer loses                      masks, finetune, evaluate
       ▼                                                      │
    trials      trials_file  latency_cache  ◀─────────────────┘ what is known already

`rules` reads how much a config asks for; `rounds` and `autocompress` say what AutoCompress does
when, and `admm` is the arithmetic of its training. `user_functions` sorts what the user gave to
train and to score.
"""
