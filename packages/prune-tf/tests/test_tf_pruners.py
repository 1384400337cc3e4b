"""Each algorithm on weights that a person can check, and the mistakes that users make."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import prune_tf
from prune_core import ConfigError, PruneError, get_pruner

TYPES = ["level", "l1", "l2", "fpgm", "nm", "block", "slim", "apoz", "mean_activation", "taylorfo"]


def dense(kernel, bias=None):
    """A model of one Dense, by its kernel as Keras has it: (in, out)."""
    kernel = np.array(kernel, "float32")
    bias = np.zeros(kernel.shape[1]) if bias is None else np.array(bias)
    model = keras.Sequential(
        [layers.Input((kernel.shape[0],)), layers.Dense(kernel.shape[1], name="fc")]
    )
    model.set_weights([kernel, bias])
    return model


def rule(sparsity, *types, **keys):
    return [{"sparsity": sparsity, "op_types": list(types) or ["default"]} | keys]


@pytest.mark.parametrize("name", TYPES)
def test_every_name_is_registered_for_keras(name):
    assert issubclass(get_pruner(name, framework="keras"), prune_tf.Pruner)


def test_level_prunes_the_smallest_and_the_first_of_equals():
    model = dense([[1.0, -4.0], [2.0, 1.0], [-3.0, 5.0]])
    _, masks = prune_tf.LevelPruner(model, rule(0.5)).compress()
    assert masks["fc"]["kernel"].tolist() == [[False, True], [False, False], [True, True]]
    assert masks["fc"]["bias"].all()


def test_level_masks_the_bias_of_a_channel_that_lost_everything():
    _, masks = prune_tf.LevelPruner(dense([[1.0, 9.0], [1.0, 9.0]]), rule(0.5)).compress()
    assert masks["fc"]["bias"].tolist() == [False, True]


def test_level_balanced_takes_as_much_from_each_block():
    model = dense([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]])
    pruner = prune_tf.LevelPruner(model, rule(0.5), mode="balance", balance_gran=[1, 2])
    _, masks = pruner.compress()
    assert masks["fc"]["kernel"].T.tolist() == [[False, True] * 2] * 2


def test_level_over_all_layers_reaches_the_total(cnn):
    total = [{"total_sparsity": 0.7, "op_types": ["Conv2D", "Dense"]}]
    _, masks = prune_tf.LevelPruner(cnn, total, mode="global").compress()
    kernels = [tensors["kernel"] for tensors in masks.values()]
    size = sum(kernel.size for kernel in kernels)
    assert sum((~kernel).sum() for kernel in kernels) == int(0.7 * size)


def test_a_cap_holds_when_layers_are_ranked_together(cnn):
    cnn.get_layer("conv").kernel.assign(cnn.get_layer("conv").kernel * 1e-6)
    total = [
        {"total_sparsity": 0.5, "op_types": ["Conv2D", "Dense"], "max_sparsity_per_layer": 0.6}
    ]
    pruner = prune_tf.LevelPruner(cnn, total, mode="global")
    pruner.compress()
    assert 0.59 < pruner.sparsity()["conv"] <= 0.6
    kept = [tensors["kernel"] for tensors in pruner.masks.values()]
    assert sum(k.sum() for k in kept) == sum(k.size for k in kept) // 2


def test_norms_prune_whole_channels():
    kernel = [[3.0, 0.0, 1.0], [0.0, 2.0, 1.9]]  # L1: 3, 2, 2.9; L2: 3, 2, 2.15
    for pruner in (prune_tf.L1NormPruner, prune_tf.L2NormPruner):
        _, masks = pruner(dense(kernel), rule(0.4)).compress()
        assert masks["fc"]["bias"].tolist() == [True, False, True]
        assert masks["fc"]["kernel"].all(axis=0).tolist() == [True, False, True]
    kernel = [[2.5, 2.0], [0.0, 2.0]]  # L1: 2.5, 4; L2: 2.5, 2.83
    for pruner in (prune_tf.L1NormPruner, prune_tf.L2NormPruner):
        _, masks = pruner(dense(kernel), rule(0.5)).compress()
        assert masks["fc"]["bias"].tolist() == [False, True]


def test_fpgm_prunes_what_is_nearest_to_all_others():
    _, masks = prune_tf.FPGMPruner(dense([[0.0, 5.0, 9.0]]), rule(0.4)).compress()
    assert masks["fc"]["bias"].tolist() == [True, False, True]


def test_nm_keeps_two_of_four():
    kernel = np.array([[1.0, 2.0, 3.0, 4.0, 8.0, 7.0, 6.0, 5.0]]).T
    _, masks = prune_tf.NMPruner(dense(kernel), rule(0.5)).compress()
    assert (
        masks["fc"]["kernel"][:, 0].tolist() == [False, False, True, True, True, True] + [False] * 2
    )


def test_blocks_go_as_wholes():
    kernel = np.ones((4, 2))
    kernel[2:, 0] = 0.1
    pruner = prune_tf.BlockPruner(dense(kernel), rule(0.25), block_sparse_size=[1, 2])
    _, masks = pruner.compress()
    assert masks["fc"]["kernel"].T.tolist() == [[True, True, False, False], [True] * 4]


def test_slim_ranks_the_factors_of_all_layers_and_masks_the_offset_too():
    model = keras.Sequential(
        [
            layers.Input((2,)),
            layers.BatchNormalization(name="a"),
            layers.BatchNormalization(name="b"),
        ]
    )
    model.get_layer("a").gamma.assign([0.1, -5.0])
    model.get_layer("b").gamma.assign([0.2, 4.0])
    total = [{"total_sparsity": 0.5, "op_types": ["default"]}]
    _, masks = prune_tf.SlimPruner(model, total).compress()
    for name in ("a", "b"):
        assert masks[name]["gamma"].tolist() == masks[name]["beta"].tolist() == [False, True]


def test_slim_trains_with_a_penalty_and_takes_it_off_again():
    model = keras.Sequential([layers.Input((2,)), layers.BatchNormalization(name="a")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.random.default_rng(0).normal(size=(64, 2))
    model.fit(x, x, verbose=0)
    before = model.get_layer("a").gamma.numpy()
    pruner = prune_tf.SlimPruner(
        model, rule(0.5), calibrate=lambda model: model.fit(x, x, epochs=3, verbose=0), scale=1.0
    )
    pruner.compress()
    assert (np.abs(model.get_layer("a").gamma.numpy()) < 0.8 * before).all()
    assert model.losses == []


def test_apoz_prunes_what_is_silent():
    model = dense([[1.0, 1.0, 1.0]], bias=[0.0, -0.5, 2.0])
    data = np.array([[-1.0], [0.2], [1.0]], "float32")  # positive: 2, 1 and 3 times of three
    _, masks = prune_tf.ActivationAPoZRankPruner(model, rule(0.4), data=data).compress()
    assert masks["fc"]["bias"].tolist() == [True, False, True]


def test_mean_activation_prunes_what_is_weak():
    model = dense([[1.0, 5.0]], bias=[0.0, -4.0])
    data = np.ones((4, 1), "float32")  # 1 and 1; then relu6 of 2 and 6 against 12 and 6
    model.get_layer("fc").bias.assign([1.0, -4.0])
    _, masks = prune_tf.ActivationMeanRankPruner(model, rule(0.5), data=data).compress()
    assert masks["fc"]["bias"].tolist() == [True, False]


def test_activations_of_a_subclassed_model_are_seen_too():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc = layers.Dense(4, name="fc")

        def call(self, x):
            return self.fc(x)

    model = Net()
    model(np.ones((1, 3)))
    data = [(np.ones((2, 3)), np.ones(2)), (np.ones((2, 3)), np.ones(2))]
    _, masks = prune_tf.ActivationAPoZRankPruner(model, rule(0.5), data=data).compress()
    assert masks["fc"]["bias"].sum() == 2
    assert "call" not in vars(model.fc)


def test_taylor_prunes_what_the_loss_does_not_need():
    model = keras.Sequential(
        [
            layers.Input((2,)),
            layers.Dense(3, name="hidden"),
            layers.Dense(1, name="head"),
        ]
    )
    model.get_layer("head").kernel.assign([[1.0], [1e-4], [1.0]])
    data = (np.ones((8, 2), "float32"), np.ones((8, 1), "float32"))
    pruner = prune_tf.TaylorFOWeightPruner(
        model, rule(0.34, op_names=["hidden"]), data=data, loss=keras.losses.MeanSquaredError()
    )
    _, masks = pruner.compress()
    assert masks["hidden"]["bias"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    "pruner", [prune_tf.LevelPruner, prune_tf.L1NormPruner, prune_tf.FPGMPruner]
)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.75])
def test_the_sparsity_is_reached_in_every_layer(cnn, pruner, sparsity, zeros_hold):
    pruner = pruner(cnn, rule(sparsity))
    _, masks = pruner.compress()
    assert set(masks) == {"conv", "depthwise", "separable", "head"}
    for target in pruner.targets:
        units = target.weight.shape[target.axis] if pruner.per_channel else target.weight.size
        assert pruner.sparsity()[target.name] == pytest.approx(int(sparsity * units) / units)
    if sparsity:
        zeros_hold(cnn)


def test_pruning_again_keeps_what_is_gone(cnn):
    _, first = prune_tf.L1NormPruner(cnn, rule(0.25)).compress()
    _, second = prune_tf.L1NormPruner(cnn, rule(0.5)).compress()
    for layer, tensors in first.items():
        for name, mask in tensors.items():
            assert not (second[layer][name] & ~mask).any()


def test_exclude_names_and_order():
    model = keras.Sequential([layers.Input((4,)), *(layers.Dense(4, name=f"d{i}") for i in "abc")])
    rules = [
        {"sparsity": 0.5, "op_types": ["Dense"]},
        {"exclude": True, "op_names": ["da"]},
        {"sparsity": 0.25, "op_partial_names": ["c"]},
    ]
    pruner = prune_tf.LevelPruner(model, rules)
    pruner.compress()
    assert pruner.sparsity() == {"db": 0.5, "dc": 0.25}


def test_layers_of_a_nested_model_go_by_their_path():
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="fc")], name="backbone")
    model = keras.Sequential([layers.Input((4,)), inner, layers.Dense(2, name="fc")])
    rules = [{"sparsity": 0.5, "op_names": ["backbone/fc"]}]
    _, masks = prune_tf.LevelPruner(model, rules).compress()
    assert list(masks) == ["backbone/fc"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"sparsity": 0.5, "op_types": ["Conv2d"]}], "Keras calls it 'Conv2D'"),
        ([{"sparsity": 0.5, "op_names": ["con"]}], "no module of that name. Did you mean 'conv'"),
        ([{"sparsity": 0.5, "op_names": ["relu"]}], "a ReLU; L1NormPruner prunes Conv1D"),
        ([{"sparsity": 1.5, "op_types": ["default"]}], "at least 0 and less than 1"),
        ([{"sparsit": 0.5, "op_types": ["default"]}], "Did you mean 'sparsity'"),
    ],
)
def test_a_mistake_in_the_rules_leaves_the_model_alone(cnn, rules, message):
    before = cnn.to_json()
    with pytest.raises(ConfigError, match=message):
        prune_tf.L1NormPruner(cnn, rules)
    assert cnn.to_json() == before


def test_a_model_without_weights_is_refused():
    with pytest.raises(ConfigError, match="Build it first"):
        prune_tf.LevelPruner(keras.Sequential([layers.Dense(3)]), rule(0.5))


def test_something_else_than_a_model_is_refused():
    with pytest.raises(PruneError, match="prunes Keras 3 models"):
        prune_tf.LevelPruner(object(), rule(0.5))


def test_an_unknown_mode_is_refused(cnn):
    with pytest.raises(ConfigError, match="the modes of L1NormPruner are 'normal'"):
        prune_tf.L1NormPruner(cnn, rule(0.5), mode="globl")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: prune_tf.NMPruner(m, rule(0.3, "Dense")), "prunes 0.5"),
        (lambda m: prune_tf.NMPruner(m, rule(0.5, "Conv2D")), "groups of 4. Exclude it"),
        (lambda m: prune_tf.BlockPruner(m, rule(0.5, "Conv2D"), [3, 3]), "blocks of"),
        (lambda m: prune_tf.LevelPruner(m, rule(0.5), mode="balance"), "balance_gran is missing"),
        (lambda m: prune_tf.LevelPruner(m, rule(0.5), "balance", 3), "balance_gran is 3"),
        (
            lambda m: prune_tf.ActivationAPoZRankPruner(m, rule(0.5), np.ones(1), batches="2"),
            "batches is '2'",
        ),
        (
            lambda m: prune_tf.ActivationAPoZRankPruner(m, rule(0.5), (np.ones(4), np.ones(3))),
            "arrays of 4 and 3 samples",
        ),
        (lambda m: prune_tf.SlimPruner(m, rule(0.5), scale=-1), "scale is -1"),
        (lambda m: prune_tf.ActivationAPoZRankPruner(m, rule(0.5), data=3), "data is a int"),
        (lambda m: prune_tf.TaylorFOWeightPruner(m, rule(0.5), data=[]), "loss is missing"),
    ],
)
def test_a_mistake_in_an_argument_is_named_before_anything_changes(cnn, make, message):
    before = cnn.to_json()
    with pytest.raises(ConfigError, match=message):
        make(cnn)
    assert cnn.to_json() == before


@pytest.mark.parametrize("names", [["a", "b"], None], ids=["dict", "list"])
@pytest.mark.parametrize("name", ["ActivationAPoZRankPruner", "TaylorFOWeightPruner"])
def test_several_inputs_come_as_fit_takes_them(name, names):
    rng = np.random.default_rng(0)
    inputs = [layers.Input((4,), name="a"), layers.Input((3,), name="b")]
    hidden = layers.Dense(6, name="fc")(layers.Concatenate()(inputs))
    x = [rng.normal(size=(40, n)).astype("float32") for n in (4, 3)]
    y = rng.normal(size=(40, 1)).astype("float32")
    if names:
        inputs, x = dict(zip(names, inputs, strict=True)), dict(zip(names, x, strict=True))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile("sgd", "mse")
    rules = [{"sparsity": 0.5, "op_names": ["fc"]}]
    starts = (0, 32)
    parts = [keras.tree.map_structure(lambda a, i=i: a[i : i + 32], (x, y)) for i in starts]
    whole, by_batch = (
        getattr(prune_tf, name)(model, rules, data=data).scores()["fc"] for data in ((x, y), parts)
    )
    np.testing.assert_allclose(whole, by_batch)


def test_samples_may_be_a_tensor():
    model = dense([[1.0, -1.0, 2.0]])
    data = ops.ones((40, 1))
    _, masks = prune_tf.ActivationAPoZRankPruner(model, rule(0.4), data=data).compress()
    np.testing.assert_array_equal(masks["fc"]["kernel"], [[True, False, True]])


@pytest.mark.parametrize(
    ("scores", "message"),
    [({}, "returns nothing for 'fc'"), ({"fc": np.ones(2)}, r"the shape \(2,\) for 'fc'")],
)
def test_scores_that_do_not_fit_are_named(scores, message):
    class Own(prune_tf.Pruner):
        def scores(self):
            return scores

    with pytest.raises(PruneError, match=rf"Own.scores\(\) .*{message}; it must have .* \(3,\)"):
        Own(dense([[1.0, 2.0, 3.0]]), rule(0.5)).compress()


def test_weights_that_are_not_numbers_are_named():
    model = dense([[np.nan, 1.0]])
    with pytest.raises(PruneError, match="scores of 'fc' contain NaN"):
        prune_tf.LevelPruner(model, rule(0.5)).compress()


def test_shared_variables_are_refused():
    class Tied(layers.Layer):
        def __init__(self, other):
            super().__init__(name="tied")
            self.kernel = other.kernel

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.kernel))

    x = layers.Input((3,))
    first = layers.Dense(4, name="first")
    h = first(x)
    model = keras.Model(x, Tied(first)(h))
    with pytest.raises(ConfigError, match="is one tensor with"):
        prune_tf.LevelPruner(model, rule(0.5, "Dense"))


@pytest.mark.parametrize(
    ("name", "types"), [("LevelPruner", ["default"]), ("SlimPruner", ["BatchNormalization"])]
)
def test_what_compress_returns_is_trained_as_the_model(name, types, tmp_path):
    """As the predecessor's examples do: `model = pruner.compress()`, and then compile and fit."""
    keras.utils.set_random_seed(0)
    dense = keras.Sequential(
        [
            *(keras.Input((6, 6, 1)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()),
            *(keras.layers.ReLU(), keras.layers.Flatten(), keras.layers.Dense(3)),
        ]
    )
    pruner = getattr(prune_tf, name)(dense, [{"sparsity": 0.5, "op_types": types}])
    model = pruner.compress()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = np.random.default_rng(0).random((8, 6, 6, 1)), np.arange(8) % 3
    model.fit(images, labels, epochs=1, verbose=0)
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (model(images), dense(images))))
    bound, masks = model
    assert bound is dense
    assert all(
        (mask == prune_tf.masks_of(dense)[n][t]).all()
        for n, m in masks.items()
        for t, mask in m.items()
    )
    if name == "SlimPruner":
        assert prune_tf.shrink(model).model.count_params() < dense.count_params()
    prune_tf.export_model(model, tmp_path / "model.keras")
    assert prune_tf.unwrap(model) is pruner.unwrap() is dense
    assert not prune_tf.masks_of(dense)
    layer, tensors = next(iter(masks.items()))
    for tensor, mask in tensors.items():
        kept = ops.convert_to_numpy(getattr(dense.get_layer(layer), tensor))
        assert not kept[~mask].any()
