"""What users are likely to get wrong, one row each: a sentence that says what would be right."""

import keras
import numpy as np
import pytest
from keras import layers

import prune_tf
from prune_core import PruneError
from prune_tf import (
    ActivationAPoZRankPruner,
    AGPPruner,
    L1NormPruner,
    LevelPruner,
    LotteryTicketPruner,
    NMPruner,
    PruningSchedule,
    TaylorFOWeightPruner,
    apply_masks,
    export_model,
    load_masks,
    load_pruned,
    polynomial,
    prune,
    save_masks,
    save_pruned,
    set_masks,
    shrink,
    units,
    unwrap,
)

HALF = [{"sparsity": 0.5, "op_types": ["Dense"]}]
SAMPLES, LABELS = np.ones((4, 6), "float32"), np.zeros(4, "int32")


def net():
    return keras.Sequential(
        [layers.Input((6,)), layers.Dense(8, name="first"), layers.Dense(2, name="head")],
        name="net",
    )


def lstm():
    end = layers.Dense(2, name="head")
    return keras.Sequential([layers.Input((5, 3)), layers.LSTM(4, name="lstm"), end])


def quantised():
    model = net()
    for layer in model.layers:
        layer.quantize("int8")
    return model


def pruned():
    return L1NormPruner(net(), [{"sparsity": 0.5, "op_names": ["first"]}]).compress()[0]


def fitted(callback_of):
    model = net()
    model.compile("sgd", "mse")
    model.fit(SAMPLES, np.ones((4, 2)), verbose=0, callbacks=[callback_of(model)])


def rules(**entry):
    return lambda: L1NormPruner(net(), [{"sparsity": 0.5} | entry])


def gradual():
    return AGPPruner(net(), [{**HALF[0], "end_step": 4}])


def taylor(**options):
    return TaylorFOWeightPruner(net(), HALF, **options).compress()


def apoz(**options):
    return ActivationAPoZRankPruner(net(), HALF, **options).compress()


MISTAKES = [
    # config_list
    (rules(op_types=["Linear"]), "'Linear' is torch's name; Keras calls it 'Dense'"),
    (rules(op_types=["dense"]), "Did you mean 'Dense'"),
    (rules(op_types="Dense"), r"write \['Dense'\]"),
    (rules(op_types=[layers.Dense]), r"write \['Dense'\]"),
    (rules(op_types=["InputLayer"]), "L1NormPruner prunes Conv1D"),
    (rules(op_names=["frist"]), "Did you mean 'first'"),
    (rules(op_names=["first/kernel"]), "Did you mean 'first'"),
    (rules(op_names=[net().layers[0]]), "non-empty strings"),
    (rules(op_types=["Dense"], sparsity=50), "0.5 prunes half"),
    (rules(op_types=["Dense"], sparsity="0.5"), "0.5 prunes half"),
    (rules(op_types=["Dense"], sparsity=1.0), "less than 1"),
    (lambda: L1NormPruner(net(), [{"op_types": ["Dense"]}]), "does not say how much to prune"),
    (lambda: L1NormPruner(net(), HALF[0]), r"write \[\{\.\.\.\}\]"),
    (lambda: L1NormPruner(net(), 0.5), "must be a list of dicts"),
    (lambda: LevelPruner(lstm(), [{"sparsity": 0.5, "op_names": ["lstm"]}]), "lstm/lstm_cell"),
    # pruners
    (lambda: L1NormPruner(net()), "needs 'config_list'"),
    (lambda: L1NormPruner(HALF, net()), r"L1NormPruner\(model, config_list\)"),
    (lambda: L1NormPruner("model.keras", HALF), "prunes Keras 3 models"),
    (lambda: L1NormPruner(layers.Dense(3), HALF), "prunes Keras 3 models"),
    (lambda: L1NormPruner(keras.Sequential([layers.Dense(3)]), HALF), "no weights yet"),
    (lambda: L1NormPruner(net(), HALF, mode="globally"), "the modes of L1NormPruner are 'normal'"),
    (lambda: L1NormPruner(net(), HALF, SAMPLES), "mode is array"),
    (lambda: L1NormPruner(net(), HALF, dummy_input=SAMPLES), "takes no 'dummy_input'"),
    (lambda: L1NormPruner(net(), config=HALF), "Did you mean 'config_list'"),
    (
        lambda: L1NormPruner(quantised(), HALF),
        r"'first' is quantised \(int8\).*Prune and shrink first",
    ),
    (lambda: NMPruner(net(), HALF, n=4, m=2), "0 < n < m"),
    (lambda: apoz(), "needs 'data'"),
    (lambda: apoz(data=[np.ones((4, 5))]), r"of the shape \(4, 5\); it takes \(None, 6\)"),
    (lambda: apoz(data="samples.npy"), "cannot be run on data"),
    (lambda: apoz(calibrate=SAMPLES), "must be a function"),
    (lambda: taylor(data=(SAMPLES, LABELS)), "loss is missing"),
    (lambda: taylor(data=SAMPLES, loss="mse"), "samples without targets"),
    (lambda: taylor(data=(SAMPLES, LABELS), loss="msee"), "no loss of that name"),
    # prune, shrink
    (lambda: prune(net(), 0.5), "sparsity=0.5"),
    (lambda: prune(net(), sparsity=0.5, target={"flops": 0.5}), "once"),
    (lambda: prune(net(), target=0.5), r"such as \{'flops': 0.5\}"),
    (lambda: prune(net(), target={"flops": 50}), "less than 1"),
    (lambda: prune(net(), target={"flop": 0.5}), "Did you mean 'flops'"),
    (
        lambda: prune(net(), "l3", sparsity=0.5),
        "There is no pruner 'l3'.*Registered for keras: admm",
    ),
    (lambda: prune(net(), sparsity=0.5, uniform="yes"), "uniform is 'yes'; it must be True or Fal"),
    (lambda: shrink(pruned(), verify="no"), "verify is 'no'; it must be True or False"),
    (lambda: export_model(net(), "net.keras", verify=1), "verify is 1; it must be True or False"),
    (
        lambda: LotteryTicketPruner(net(), HALF, "last"),
        "reset_weights is 'last'; it must be True or False",
    ),
    (
        lambda: prune(lstm(), "apoz", sparsity=0.5, data=[np.ones((2, 5, 3))]),
        "LSTMCell: 'l1' prunes these by weights",
    ),
    (lambda: prune(net(), sparsity=0.5, rounds=3), "takes no 'rounds'"),
    (lambda: prune(net(), sparsity=0.5, exclude="haed"), "Did you mean 'head'"),
    (lambda: prune(net(), sparsity=0.5, exclude=net().layers[-1]), "exclude is <Dense name=head"),
    (lambda: prune(net(), sparsity=0.5, targets="Linear"), "Keras calls it 'Dense'"),
    (lambda: prune(net(), sparsity=0.5, round_to=2.5), "whole number"),
    (lambda: prune(net(), sparsity=0.5, round_to=64), "less than 64 channels of any layer"),
    (lambda: prune(net(), sparsity=0.5, example_inputs=SAMPLES.T), r"it takes \(None, 6\)"),
    (lambda: shrink(pruned(), [SAMPLES, SAMPLES]), r"it takes \(None, 6\)"),
    (lambda: shrink(net(), {"first": {"kernel": np.ones((6, 8))}}), r"write shrink\(model, masks="),
    (lambda: shrink(pruned(), constants="fold"), "for torch models only"),
    (lambda: shrink(pruned(), tolerance="1e-3"), "must be a number"),
    (lambda: shrink(pruned(), tolerance=True), "tolerance is True; it must be a number"),
    (lambda: shrink(pruned(), units=3), "units is 3; it must be a list of units"),
    (lambda: save_pruned(net(), None), "None cannot be the path of a file"),
    (lambda: units("net"), "must be a Keras 3 model"),
    # masks and files
    (lambda: set_masks(net(), {"first": {"weight": np.ones((6, 8))}}), "masked in kernel, bias"),
    (lambda: set_masks(net(), {"first": {"kernel": np.ones((8, 6))}}), "for another model"),
    (lambda: set_masks(net(), {"first": np.ones((6, 8))}), "masks are a mapping"),
    (lambda: set_masks(net(), {}), "masks is empty, so nothing would be masked"),
    (lambda: set_masks(net(), {"first": {}}), "masks is empty, so nothing would be masked"),
    (lambda: apply_masks(net()), "has no masks, so nothing would be set to zero"),
    (lambda: apply_masks(unwrap(pruned())), r"unwrap\(\) takes them off"),
    (lambda: set_masks(net(), {"first": {"kernel": np.full((6, 8), 0.3)}}), r"0 \(pruned\) and 1"),
    (lambda: save_masks(pruned(), "masks.safetensors"), "in that order"),
    (lambda: load_masks(net(), "masks.safetensors"), "must be a Keras 3 model"),
    (lambda: load_masks("none.safetensors", net()), "No such file"),
    (lambda: load_pruned("none.keras", net()), r"load_pruned\(model, path\)"),
    (lambda: export_model("net.keras", net()), "must be a Keras 3 model"),
    (lambda: export_model(net(), "net.h5"), "let the path end in .keras"),
    # schedules
    (lambda: PruningSchedule(net(), end_step=5), "must be a pruner of this package"),
    (lambda: PruningSchedule(LevelPruner(net(), HALF), 5, 10), "must start at step 0 or later"),
    (lambda: PruningSchedule(LevelPruner(net(), HALF), 5.5), "whole number of steps"),
    (lambda: PruningSchedule(LevelPruner(net(), HALF), 5, curve="cubicc"), "Did you mean 'cubic'"),
    (
        lambda: PruningSchedule(LevelPruner(net(), HALF), 5).step("3"),
        "step is '3'; it must be",
    ),
    (lambda: gradual().step(2.5), "step is 2.5; it must be a whole number"),
    (lambda: gradual().step(-1), "step is -1; it must be a whole number of at least 0"),
    (lambda: gradual().update_epoch(None), "epoch is None; it must be a whole number"),
    (lambda: polynomial("3"), "power is '3'; it must be a number"),
    (lambda: fitted(lambda m: PruningSchedule(LevelPruner(net(), HALF), 5)), "a copy of it"),
    (lambda: fitted(lambda m: LevelPruner(m, HALF)), "LevelPruner is no callback"),
    (lambda: AGPPruner(net(), HALF), "Add 'end_epoch' or 'end_step'"),
    (
        lambda: fitted(lambda m: AGPPruner(m, [{**HALF[0], "end_epoch": 1}])),
        r"callbacks=\[pruner.callback\]",
    ),
]


@pytest.mark.parametrize(("mistake", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_a_mistake_is_named(mistake, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PruneError, match=says):
        mistake()
    assert not [*tmp_path.iterdir()]


def test_names_of_torch_are_told():
    with pytest.raises(AttributeError, match=r"here shrink\(model\) returns a small model"):
        _ = prune_tf.ModelSpeedup
    with pytest.raises(AttributeError, match="Did you mean 'L1NormPruner'"):
        _ = prune_tf.L1NormPrunr
