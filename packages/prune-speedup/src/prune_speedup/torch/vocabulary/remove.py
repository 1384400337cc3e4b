"""Take tokens out of the vocabulary of a model, and prove that nothing else has changed.

What a token consists of goes at once: its rows of embeddings and heads, and its place in biases.
The small model, given new ids, has to compute what the model computed in which nobody chooses the
removed tokens (see `without`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, SpeedupError, warn
from prune_core.events import emit
from prune_core.masking import bare, check_model, wrappers_in
from prune_speedup.torch.layers import layer_sizes
from prune_speedup.torch.measure import Taken, taken_by
from prune_speedup.torch.mixtures.counts import (
    Attribute,
    Carrier,
    attributes_by_config,
    carrier_of,
    describe,
    fitting,
    put_counts,
)
from prune_speedup.torch.model_config.build import built_like, shapes_of
from prune_speedup.torch.model_config.numbers import Values, integers
from prune_speedup.torch.optimizers import expect_optimizers
from prune_speedup.torch.parts import put
from prune_speedup.torch.record.inputs import listed
from prune_speedup.torch.report import Change, SpeedupReport
from prune_speedup.torch.resize.layers import resize
from prune_speedup.torch.saving import put_config
from prune_speedup.torch.surgery import (
    plain_attributes,
    record_surgery,
    record_tokens,
    shapes_of_tensors,
)
from prune_speedup.torch.tensors import Snapshot
from prune_speedup.torch.vocabulary.find import vocabularies
from prune_speedup.torch.vocabulary.renumbering import Renumbering
from prune_speedup.torch.vocabulary.token_map import TokenMap, checked_ids
from prune_speedup.torch.vocabulary.vocabulary import Vocabularies, Vocabulary
from prune_speedup.torch.vocabulary.without import Ids, TokensProof
from prune_speedup.torch.vocabulary.written_ids import renumbering_of

__all__ = ["choose_vocabulary", "remove_tokens", "special_tokens"]


def remove_tokens(
    model: nn.Module,
    example_inputs: Any,
    tokens: Iterable[int] | None = None,
    *,
    keep: Iterable[int] | None = None,
    vocabulary: str | None = None,
    verify: bool = True,
    verify_inputs: Sequence[Any] = (),
    tolerance: float | None = None,
) -> SpeedupReport:
    """Take tokens out of the vocabulary of a model, in place.

    The tokens that stay keep their order and get the ids from 0; `report.tokens` translates. Ids
    that the model has written down follow: `vocab_size`, `pad_token_id` and the like in its config
    and its generation config, and `padding_idx` of embeddings. Tokens that these name always stay.

    Args:
        model: Any module; it stays the same Python object.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments, with old
            ids. Where it has tokens that go, others are compared in their place.
        tokens: The ids of the tokens that go.
        keep: The ids of those that stay instead.
        vocabulary: Its name, as listed by `prune_core.vocabularies(model, example_inputs)`, where
            the model has several.
        verify: Compare the small model with the one that never chooses the removed tokens, on the
            example, another batch, other lengths and in training, and go back if they differ.
        verify_inputs: More inputs to compare them on, each in the form of `example_inputs`.
        tolerance: The largest difference allowed, relative to the largest number of an output; by
            default what rounding does to the output's type.

    Raises:
        ConfigError: There is no such vocabulary or token, or the model itself needs one that goes.
        SpeedupError: The small model would compute something else. The model is untouched.

    Warns:
        PruneWarning: The model's config cannot describe it, so `save_pretrained` is refused.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10))
        >>> report = remove_tokens(model, torch.tensor([[1, 2]]), keep=[1, 2, 5, 7])
        >>> model[0], model[1].out_features
        (Embedding(4, 4), 4)
        >>> report.tokens.to_new([5, 1])
        [2, 0]
    """
    model = model_of(model)
    with bare(model) as plain:
        report = _remove(
            plain,
            example_inputs,
            tokens,
            keep,
            vocabulary,
            verify=verify,
            verify_inputs=verify_inputs,
            tolerance=tolerance,
        )
    if report.model is plain:
        report.model = model
    emit("prune_model_shrunk", model=report.model, report=report)
    if report.config is not None and report.config.missing:
        warn(report.config.warning(type(plain).__name__))
    return report


def _remove(
    model: nn.Module,
    example_inputs: Any,
    tokens: Iterable[int] | None,
    keep: Iterable[int] | None,
    name: str | None,
    *,
    verify: bool,
    verify_inputs: Sequence[Any],
    tolerance: float | None,
) -> SpeedupReport:
    check_model(model, compiled=False)
    if wrapped := wrappers_in(model):
        raise SpeedupError(
            f"{next(iter(wrapped))!r} is still wrapped by a pruner: take the wrappers off first, "
            "with prune_core.unwrap(model) or the pruner's own unwrap."
        )
    verify_inputs = listed(verify_inputs)
    found = vocabularies(model, example_inputs)
    vocabulary = choose_vocabulary(model, found, name)
    carrier = _carrier(model, vocabulary)
    written = _renumbering(model, found, vocabulary, carrier)
    stay = _staying(vocabulary, tokens, keep, _special(model, vocabulary, written))
    kept = TokenMap(vocabulary.name, vocabulary.size, stay)
    report = SpeedupReport(model)
    report.tokens = kept
    took = taken_by(model)
    report.parameters, report.zeros, report.bytes = zip(took, took, strict=True)
    if len(stay) == vocabulary.size:
        report.shortfall = "All tokens stay, so that nothing was removed."
        warn(report.shortfall)
        return report
    sizes = shapes_of_tensors(model)
    numbers = dict(integers(carrier.config)) if carrier is not None else {}
    original = Snapshot(model)
    try:
        proof = (
            TokensProof(model, example_inputs, verify_inputs, vocabulary, kept, tolerance)
            if verify
            else None
        )
        written = replace(written, stay=stay)
        renumbered = written.apply(model)
        attributes = plain_attributes(model)
        _cut(model, vocabulary, stay)
        values, why = _counted(model, vocabulary, stay, carrier, proof)
        new_inputs = Ids(frozenset(vocabulary.inputs), kept).after(example_inputs)
        report.config = describe(model, new_inputs, carrier, values, numbers, why=why)
        if report.config is not None and not report.config.missing:
            report.config.values |= renumbered
    except BaseException:
        original.restore()
        raise
    after = plain_attributes(model)
    report.attributes = [
        (module, attribute, old, after[module][attribute])
        for module, before in attributes.items()
        for attribute, old in before.items()
        if after[module].get(attribute, old) != old
    ]
    record_surgery(model, attributes, sizes, report.config, {})
    record_tokens(model, written)
    if proof is not None:
        report.comparison, report.verified = proof.difference, proof.inputs
        report.flops = proof.flops
    _describe(report, vocabulary, stay, sizes, took)
    report.layers = layer_sizes(model, sizes, report.slices, attributes)
    expect_optimizers(report)
    return report


def choose_vocabulary(model: nn.Module, found: Vocabularies, name: str | None) -> Vocabulary:
    """Return the vocabulary that is meant, by its name or because it is the only likely one.

    Raises:
        ConfigError: There is none, none of this name, or several that could be meant.
    """
    if not len(found):
        raise ConfigError(
            "The model has no vocabulary: no table was seen to be looked up by whole numbers of "
            "the inputs. Give example inputs that hold token ids."
        )
    if name is not None:
        return found[name]
    sizes = {
        getattr(holder, "vocab_size", None)
        for module in model.modules()
        for holder in [getattr(module, "config", None)]
    }
    for likely in (
        [each for each in found if each.heads],
        [each for each in found if each.size in sizes],
        list(found),
    ):
        if len(likely) == 1:
            return likely[0]
        if likely:
            break
    names = ", ".join(repr(each.name) for each in likely)
    raise ConfigError(
        f"The model has several vocabularies: {names}. Say which one is meant: "
        f"vocabulary={likely[0].name!r}."
    )


def special_tokens(model: nn.Module, found: Vocabularies, vocabulary: Vocabulary) -> dict[int, str]:
    """Return the tokens that the model itself names, and where; they have to stay."""
    carrier = _carrier(model, vocabulary)
    return _special(model, vocabulary, _renumbering(model, found, vocabulary, carrier))


def _special(model: nn.Module, vocabulary: Vocabulary, written: Renumbering) -> dict[int, str]:
    named = written.special(model)
    return {each: where for each, where in named.items() if 0 <= each < vocabulary.size}


def _carrier(model: nn.Module, vocabulary: Vocabulary) -> Carrier | None:
    return carrier_of(model, dict.fromkeys(name for name, _ in vocabulary.places))


def _renumbering(
    model: nn.Module, found: Vocabularies, vocabulary: Vocabulary, carrier: Carrier | None
) -> Renumbering:
    """Where the ids of a vocabulary are written down.

    What a model says as a whole, it says of the tokens that it makes, if it makes any.
    """
    makes = [each for each in found if each.heads] or list(found)
    return renumbering_of(model, vocabulary, carrier, alone=vocabulary in makes)


def _staying(
    vocabulary: Vocabulary,
    tokens: Iterable[int] | None,
    keep: Iterable[int] | None,
    special: Mapping[int, str],
) -> list[int]:
    """The old ids of the tokens that stay, in their order."""
    if (tokens is None) == (keep is None):
        raise ConfigError(
            "Say which tokens go, once: remove_tokens(model, x, [5, 6]) takes these out, and "
            "keep=[...] all others."
        )
    if keep is not None:
        wanted = {*checked_ids(keep, "keep", vocabulary.size)}
        if not wanted:
            raise ConfigError("keep is empty; at least one token has to stay.")
        return sorted(wanted | {*special})
    gone = checked_ids(tokens, "tokens", vocabulary.size)
    for each in gone:
        if each in special:
            raise ConfigError(
                f"The token {each} cannot go: the model names it in {special[each]}. Leave it in, "
                "or name another one there first."
            )
    if len(gone) == vocabulary.size:
        raise ConfigError(f"tokens has all {len(gone)} tokens; at least one has to stay.")
    return sorted({*range(vocabulary.size)} - {*gone})


def _cut(model: nn.Module, vocabulary: Vocabulary, stay: list[int]) -> None:
    """Leave of each tensor only what belongs to the tokens that stay."""
    named = dict((*model.named_parameters(), *model.named_buffers()))
    for name, axis in vocabulary.places:
        tensor = named[name]
        there = torch.tensor(stay, device=tensor.device)
        grad = None if tensor.grad is None else tensor.grad.index_select(axis, there)
        put(tensor, tensor.data.index_select(axis, there), grad)
    resize(model)


def _counted(
    model: nn.Module,
    vocabulary: Vocabulary,
    stay: list[int],
    carrier: Carrier | None,
    proof: TokensProof | None,
) -> tuple[Values, str]:
    """Let the model know how many tokens it has, so that it passes the proof.

    Returns:
        The numbers of its config that have changed, or why none describes it.
    """
    cut = Snapshot(model)
    failure: SpeedupError | None = None
    for counts, values, why in _ways(model, vocabulary, stay, carrier):
        put_counts(model, counts)
        if values and carrier is not None:
            put_config(model, carrier.config, values)
        try:
            if proof is not None:
                proof.check()
        except SpeedupError as error:
            failure = failure or error
            cut.restore()
            continue
        return values, why
    assert failure is not None
    raise failure


def _ways(
    model: nn.Module, vocabulary: Vocabulary, stay: list[int], carrier: Carrier | None
) -> Iterator[tuple[dict[Attribute, int], Values, str]]:
    """Which attributes and which numbers of a config to change, the likeliest first."""
    why = ""
    if carrier is not None:
        shapes = shapes_of(carrier.module)
        for values in fitting(carrier, vocabulary, len(stay)):
            if shapes_of(built_like(carrier.module, values)) == shapes:
                yield attributes_by_config(carrier, values), values, ""
                break
        why = "no number of tokens in it makes this model"
    same = {
        (path, attribute): len(stay)
        for path, module in model.named_modules()
        if not type(module).__module__.startswith("torch.")
        for attribute, value in vars(module).items()
        if type(value) is int and value == vocabulary.size
    }
    yield same, {}, why
    if same:
        yield {}, {}, why


def _describe(
    report: SpeedupReport,
    vocabulary: Vocabulary,
    stay: list[int],
    sizes: Mapping[str, tuple[int, ...]],
    took: Taken,
) -> None:
    """Note which tensors became smaller."""
    model = report.model
    now = shapes_of_tensors(model)
    report.removed = vocabulary.size - len(stay)
    for name, axis in vocabulary.places:
        report.changes.append(Change(name, sizes[name], now[name]))
        report.slices[name] = {axis: torch.tensor(stay, device="cpu")}
    report.parameters, report.zeros, report.bytes = zip(took, taken_by(model), strict=True)
