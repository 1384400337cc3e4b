"""The suites of the zoo, each a module with `names()` and `build(name) -> (model, inputs)`.

A suite is imported when it is asked for: each brings a library of its own. Nothing is downloaded.
"""

from importlib import import_module

SUITES = {
    "nasty": "sketches",
    "torch": "torch_layers",
    "torchvision": "suites.torchvision_models",
    "timm": "suites.timm_models",
    "transformers": "suites.transformers_models",
    "ultralytics": "suites.ultralytics_models",
    "diffusers": "suites.diffusers_models",
}

LIBRARIES = {name: name for name in SUITES if name not in ("nasty", "torch")}
"""The library that the models of a suite come from; the others need torch alone."""


def suite(name):
    """The module of a suite."""
    return import_module(SUITES[name])
