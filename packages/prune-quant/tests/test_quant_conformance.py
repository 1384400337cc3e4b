"""Every quantizer keeps what every quantizer promises."""

import pytest

from prune_core import get_quantizer
from prune_core.testing import MLP, ConvNet, ResidualNet, check_quantizer, make_batch

ALL = ("naive", "observer", "qat", "lsq", "dorefa", "bnn")


@pytest.mark.parametrize("name", ALL)
def test_weights(name):
    check_quantizer(get_quantizer(name), bits=1 if name == "bnn" else 4)


@pytest.mark.parametrize("model", [MLP, ConvNet, ResidualNet])
@pytest.mark.parametrize("name", ["observer", "qat", "lsq"])
def test_weights_inputs_and_outputs(name, model):
    more = {}
    if name == "observer":
        more["calibrate"] = lambda net: net(make_batch(model)[0])
    config = {"quant_types": ["weight", "input", "output"]}
    check_quantizer(get_quantizer(name), model=model, bits=8, config=config, **more)
