"""The pruner that removes the tokens of a vocabulary that occur least in data.

A token is not masked but removed, with its rows of embeddings and heads, and the others get new
ids. So this pruner returns the smaller model and a report that translates ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prune_core.compressed import Compressed, model_of
from prune_core.errors import ConfigError, shown
from prune_core.masking import bare
from prune_core.progress import note
from prune_speedup.algorithm import running
from prune_speedup.torch.record.inputs import tensors_in
from prune_speedup.torch.report import SpeedupReport
from prune_speedup.torch.vocabulary.find import vocabularies
from prune_speedup.torch.vocabulary.remove import (
    choose_vocabulary,
    remove_tokens,
    special_tokens,
)
from prune_speedup.torch.vocabulary.token_map import checked_ids
from prune_speedup.torch.vocabulary.vocabulary import Vocabulary
from prune_toolkit.blockwise import example_of

__all__ = ["TokenFrequencyPruner"]


class TokenFrequencyPruner:
    """Remove the tokens that occur least in data.

    The score of a token is how often it occurs. Of tokens that occur equally often, those with the
    highest ids go first: most tokenizers number their tokens by how common they are. Tokens that
    the model itself names, such as the end of a text, always stay.

    Args:
        model: The model, made smaller in place.
        config_list: One rule, `{"sparsity": 0.5}`: the share of the tokens that goes. With
            `"op_names": ["model.embed_tokens"]` it names the vocabulary, if the model has several.
        calibrate: A function that runs the model on some batches.
        data: Some inputs of the model instead, each a tensor, a tuple or a dict.
        example_inputs: An input of the model; unless given, the first of the data.
        count: How many tokens go, instead of a sparsity.
        keep: Ids of tokens that stay in any case.
        round_to: Leave a multiple of this many tokens: the largest products of a language model
            are fastest with a multiple of 64.
        verify: Compare the smaller model with the one that never chooses the removed tokens.
        tolerance: The largest difference allowed; see `remove_tokens`.

    Attributes:
        scores: How often each token occurs, once `compress` has been called.
        report: What was removed, and how it was compared; `report.tokens` translates ids.
    """

    granularity: ClassVar[str] = "tokens"
    removes: ClassVar[str] = "tokens"

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        *,
        calibrate: Callable[[nn.Module], Any] | None = None,
        data: Iterable[Any] | None = None,
        example_inputs: Any = None,
        count: int | None = None,
        keep: Iterable[int] = (),
        round_to: int = 1,
        verify: bool = True,
        tolerance: float | None = None,
    ) -> None:
        """Keep what was said, and check it."""
        self.model: nn.Module = model_of(model)
        self._sparsity, self._name = _checked(config_list)
        if data is not None:
            calibrate = running(data, calibrate)
        if not callable(calibrate):
            raise ConfigError(
                "TokenFrequencyPruner counts the tokens of data: give data=, a list of inputs of "
                "the model, or calibrate=, a function that runs the model on some."
            )
        if type(round_to) is not int or round_to < 1:
            raise ConfigError(f"round_to is {round_to!r}; it must be a whole number from 1.")
        if count is not None and (type(count) is not int or count < 1):
            raise ConfigError(f"count is {shown(count)}; it must be a whole number from 1.")
        self._calibrate, self._example = calibrate, example_inputs
        self._count, self._keep, self._round_to = count, keep, round_to
        self._verify, self._tolerance = verify, tolerance
        self._target: Mapping[str, float] | None = None
        self.scores: Tensor | None = None
        self.report: SpeedupReport | None = None

    @classmethod
    def prune(
        cls,
        model: nn.Module,
        *,
        sparsity: float | None = None,
        target: Mapping[str, float] | None = None,
        targets: str | Sequence[str] = ("default",),
        exclude: str | Sequence[str] = (),
        **options: Any,
    ) -> Compressed[nn.Module, SpeedupReport]:
        """Do what `prune_core.prune` is asked to do; return the model and a report.

        Args:
            model: The model, made smaller in place.
            sparsity: The share of the tokens that goes.
            target: What may be left of the model instead: `{"parameters": 0.6}`.
            targets: The name of a vocabulary, or `"default"` for the only one.
            exclude: Nothing, since one vocabulary is pruned at a time.
            **options: Arguments of the pruner.
        """
        if exclude:
            raise ConfigError(
                f"exclude is {shown(exclude)}; one vocabulary is pruned at a time, say which one "
                "with targets=. Tokens that are to stay are given as keep=."
            )
        wanted = [targets] if isinstance(targets, str) else list(targets)
        named = {} if wanted == ["default"] else {"op_names": wanted}
        pruner = cls(model, [{"sparsity": sparsity or 0.0, **named}], **options)
        pruner._target = target
        pruner.compress()
        assert pruner.report is not None
        return Compressed(pruner.report.model, pruner.report)

    def compress(self) -> Compressed[nn.Module, dict[str, dict[str, Tensor]]]:
        """Remove tokens; return the smaller model, and that no masks are left.

        Raises:
            ConfigError: The model has no vocabulary, or too few tokens would be left.
            SpeedupError: The smaller model would compute something else.
        """
        with bare(self.model) as plain:
            example = self._example
            if example is None:
                example = example_of(plain, self._calibrate)
            found = vocabularies(plain, example)
            vocabulary = choose_vocabulary(plain, found, self._name)
            must = {*special_tokens(plain, found, vocabulary)}
            must |= {*checked_ids(self._keep, "keep", vocabulary.size)}
            left = self._left(plain, vocabulary, must)
            scores = self.scores = _counted(plain, vocabulary, self._calibrate)
        ranked = sorted(
            range(vocabulary.size),
            key=lambda token: (token not in must, -int(scores[token]), token),
        )
        stay = ranked[:left]
        share = float(scores[stay].sum() / scores.sum())
        note("prune", f"{left} of {vocabulary.size} tokens make up {share:.2%} of the data")
        self.report = remove_tokens(
            self.model,
            example,
            keep=stay,
            vocabulary=vocabulary.name,
            verify=self._verify,
            tolerance=self._tolerance,
        )
        return Compressed(self.report.model, {})

    def _left(self, model: nn.Module, vocabulary: Vocabulary, must: set[int]) -> int:
        """How many tokens stay."""
        size = vocabulary.size
        if self._count is not None:
            left = size - self._count
        elif self._target is not None:
            left = _affordable(model, vocabulary, self._target)
        else:
            left = size - int(self._sparsity * size + 1e-9)
        left += -left % self._round_to
        if left >= size:
            raise ConfigError(
                f"So little is asked for that all {size} tokens of {vocabulary.name!r} stay. Ask "
                "for more, or for a smaller round_to."
            )
        if left < max(len(must), 1):
            raise ConfigError(
                f"{left} of the {size} tokens of {vocabulary.name!r} would stay, and the model and "
                f"keep= name {len(must)} that have to. Ask for less."
            )
        return left


def _counted(
    model: nn.Module, vocabulary: Vocabulary, calibrate: Callable[[nn.Module], Any]
) -> Tensor:
    """How often each token occurs in what a calibration runs the model on."""
    counts = torch.zeros(vocabulary.size, dtype=torch.long)

    def count(module: nn.Module, args: Any, kwargs: Any) -> None:
        for path, tensor in tensors_in((args, kwargs)):
            if path in vocabulary.inputs:
                ids = tensor.detach().flatten().cpu().long()
                known = ids[(ids >= 0) & (ids < vocabulary.size)]
                counts.add_(torch.bincount(known, minlength=vocabulary.size))

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        calibrate(model)
    finally:
        handle.remove()
    if not int(counts.sum()):
        raise ConfigError(
            "The data hold no tokens: nothing was seen in "
            f"{', '.join(vocabulary.inputs)}. Call the model as the example does."
        )
    return counts


def _affordable(model: nn.Module, vocabulary: Vocabulary, target: Mapping[str, float]) -> int:
    """How many tokens may stay for a model to keep a share of its parameters."""
    if not isinstance(target, Mapping) or [*target] != ["parameters"]:
        raise ConfigError(
            f"target is {shown(target)}; tokens can be pruned to a share of the parameters, such "
            "as {'parameters': 0.6}."
        )
    wanted = target["parameters"]
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < 1:
        raise ConfigError(
            f"target['parameters'] is {shown(wanted)}; it must be above 0 and below 1."
        )
    whole = sum(parameter.numel() for parameter in model.parameters())
    parameters = dict(model.named_parameters())
    held = {name for name, _ in vocabulary.places if name in parameters}
    each = sum(parameters[name].numel() for name in held) / vocabulary.size
    rest = whole - each * vocabulary.size
    left = int((wanted * whole - rest) / each + 1e-9)
    if left < 1:
        raise ConfigError(
            f"target asks for {wanted:g} of the parameters, and without any token "
            f"{rest / whole:.3g} are left. Ask for more than that, or prune channels besides."
        )
    return left


def _checked(config_list: Sequence[Mapping[str, Any]]) -> tuple[float, str | None]:
    if not isinstance(config_list, Sequence) or len(config_list) != 1:
        raise ConfigError(
            f"config_list is {shown(config_list)}; it must be one rule, such as "
            "[{'sparsity': 0.5}]: one vocabulary is pruned at a time."
        )
    rule = config_list[0]
    for key in rule:
        if key not in ("sparsity", "op_names"):
            raise ConfigError(
                f"A rule for tokens has the key {key!r}; it has 'sparsity', and may have 'op_names'"
                " with the name of a vocabulary."
            )
    sparsity, named = rule.get("sparsity"), list(rule.get("op_names", ()))
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise ConfigError(
            f"sparsity is {shown(sparsity)}; it must be the share of the tokens that goes, from 0 "
            "to below 1."
        )
    if len(named) > 1:
        raise ConfigError(
            f"The rule names {', '.join(map(repr, named))}; one vocabulary is pruned at a time."
        )
    return float(sparsity), named[0] if named else None
