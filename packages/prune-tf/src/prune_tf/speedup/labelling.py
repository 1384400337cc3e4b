"""A model's labels: recorded, sent through the rules, and read by layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np

from prune_speedup.engine.labels import among
from prune_speedup.engine.propagate import Labelling, propagate
from prune_tf.speedup.recorded import Recorded, recorded
from prune_tf.speedup.rules.registry import Rules

__all__ = ["labelled", "recorded_of", "unknown_in"]

_ROUNDS = 3
"""How often layers are looked for whose reshapes would have to be told their sizes."""


def labelled(
    model: keras.Model,
    example_inputs: Any = None,
    *,
    repairs: bool = True,
    telling: bool = True,
) -> tuple[Recorded, Labelling]:
    """Find out what goes together in a model.

    Args:
        model: A built model.
        example_inputs: What a subclassed model is called with, unless it tells by itself.
        repairs: Whether sizes that a layer's own Python reads may be edited.
        telling: Whether those that it makes of others may be as well.

    Raises:
        SpeedupError: When the calls of a subclassed model cannot be followed.
    """
    made = recorded(model, example_inputs)
    rules = Rules(made, repairs)
    labelling = propagate(made.graph, rules)
    for _ in range(_ROUNDS if repairs and telling else 0):
        if rules.wanting <= rules.telling:
            break
        rules = Rules(made, repairs, telling=rules.telling | _can_be_told(made, rules.wanting))
        labelling = propagate(made.graph, rules)
    _fix_unspoken(labelling)
    return made, labelling


def _can_be_told(made: Recorded, layers: set[int]) -> frozenset[int]:
    """Which layers run once, so that each of their reshapes has one place."""
    places = [call.op.place for call in made.calls if hasattr(call.op, "place")]
    times = Counter((id(place.layer), place.number) for place in places)
    twice = {layer for (layer, _), count in times.items() if count > 1}
    return frozenset(layers - twice)


def recorded_of(labelling: Labelling) -> Recorded:
    """Return the model that labels are of.

    Args:
        labelling: The labels.
    """
    rules = labelling.flow.rules
    assert isinstance(rules, Rules)
    return rules.recorded


def _fix_unspoken(labelling: Labelling) -> None:
    """What lies along an axis of a weight stays if no rule has said what becomes of it."""
    labels, tensors = labelling.labels, labelling.graph.tensors
    made = (value for place, value in labelling.flow.values.items() if place not in tensors)
    carried = [group.compact().ravel() for value in made for group in value.groups]
    roots = labels.find(np.concatenate([np.array([0]), *carried]))
    for columns in labelling.axes.values():
        for column in columns:
            if column is not None:
                own = labels.find(column)
                labels.fix(own[~among(own, roots)], "its rule says nothing of this axis")


def unknown_in(made: Recorded, labelling: Labelling) -> dict[str, str]:
    """Return `{layer name: class}` of what no rule has spoken for, if it holds anything.

    Args:
        made: The model.
        labelling: Its labels.
    """
    unknown: dict[str, str] = {}
    for position, why in labelling.flow.unruled.items():
        call = made.calls[position]
        told = call.holder or call.op
        if call.holder is None or _holds(made, labelling, position, why):
            unknown[told.name] = type(told).__name__
    return unknown


def _holds(made: Recorded, labelling: Labelling, position: int, why: str) -> bool:
    """Whether channels that go into a call stay for its sake."""
    for tensor in made.calls[position].inputs:
        for group in labelling.flow.values[made.places[id(tensor)]].groups:
            if any(
                text.startswith(why) for text in labelling.labels.reasons(group.compact().ravel())
            ):
                return True
    return False
