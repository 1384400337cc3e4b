"""AutoCompress as somebody uses it: a trained network, half of its work, and its accuracy."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs TensorFlow")
pytest.importorskip("sklearn", reason="its data come with scikit-learn")


@pytest.fixture
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images = (images[order] / 16).reshape(-1, 8, 8, 1).astype("float32")
    return images, labels[order]


def residual():
    """Two convolutions whose channels are added, and one behind them."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)

    def conv(width, hidden, name):
        hidden = layers.Conv2D(width, 3, padding="same", use_bias=False, name=name)(hidden)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(hidden))

    image = layers.Input((8, 8, 1))
    stem = conv(32, image, "stem")
    hidden = layers.Add()([stem, conv(32, stem, "branch")])
    hidden = conv(64, layers.MaxPooling2D()(hidden), "last")
    hidden = layers.GlobalAveragePooling2D()(hidden)
    model = keras.Model(image, layers.Dense(10, name="head")(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    return model


def test_half_of_the_work_keeps_the_accuracy(digits):
    from prune_tf import AutoCompressPruner

    images, labels = digits
    train, test = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])

    def finetune(model, epochs=1):
        model.fit(*train, batch_size=64, epochs=epochs, verbose=0)

    def accuracy(model):
        return float((model.predict(test[0], verbose=0).argmax(1) == test[1]).mean())

    model = residual()
    finetune(model, 12)
    before, weights = accuracy(model), [np.array(each) for each in model.get_weights()]
    assert before > 0.97
    result = AutoCompressPruner(
        model,
        [{"op_types": ["Conv2D"]}],
        finetune=finetune,
        evaluate=accuracy,
        finetuner=lambda model: finetune(model, 3),
        target={"flops": 0.5},
        total_iteration=2,
        cool_down_rate=0.6,
        admm_num_iterations=2,
        admm_training_epochs=1,
    ).run()
    assert result.history[-1]["left"]["flops"] <= 0.5
    assert accuracy(result.model) == result.score > before - 0.03
    # What is added has the same channels, and the model that was given is as it was.
    small = result.model
    assert small.get_layer("stem").filters == small.get_layer("branch").filters < 32
    assert all((a == b).all() for a, b in zip(model.get_weights(), weights, strict=True))
