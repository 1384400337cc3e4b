"""The config that a model was built from, made to describe the smaller model.

Models of some libraries carry such a config, and are loaded by building them from it again. Nothing
here knows such a library or the names in its configs: numbers are tried, until a model built from
the config has the small model's tensors and returns what the small model returns.
"""
