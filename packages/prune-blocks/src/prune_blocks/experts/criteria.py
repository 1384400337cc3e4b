"""Pruners that remove the experts of a mixture that matter least.

An expert is not masked but removed: with its weights at zero it would still be chosen, and take
the place of another one. So these pruners return the smaller model and a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prune_blocks.experts import choose
from prune_blocks.experts.statistics import Statistics, gather
from prune_core.compressed import Compressed, model_of
from prune_core.errors import ConfigError, did_you_mean, nearest, shown, warn
from prune_core.masking import bare
from prune_speedup.algorithm import running
from prune_speedup.torch.mixtures.find import experts
from prune_speedup.torch.mixtures.mixture import Experts, Mixture
from prune_speedup.torch.mixtures.remove import remove_experts
from prune_speedup.torch.report import SpeedupReport
from prune_toolkit.blockwise import example_of

__all__ = ["ExpertActivationPruner", "ExpertFrequencyPruner", "ExpertPruner", "ReapPruner"]


class ExpertPruner:
    """Remove the experts that a criterion ranks lowest, on data.

    Args:
        model: The model, made smaller in place.
        config_list: Rules such as `{"sparsity": 0.5, "op_names": ["layers.0.mlp"]}`, by the names
            or class names of mixtures; without names, a rule is for all of them.
            `{"exclude": True, "op_names": [...]}` leaves mixtures whole.
        calibrate: A function that runs the model on some batches.
        data: Some inputs of the model instead, each a tensor, a tuple or a dict.
        example_inputs: An input of the model; unless given, the first of the data.
        mode: `"normal"` takes the same share of each mixture; `"global"` ranks the experts of all
            mixtures together, each score divided by the mean of its mixture.
        round_to: Leave a multiple of this many experts, as servers want them that deal experts to
            devices.
        verify: Compare the smaller model with the one in which nobody chooses the removed experts.
        tolerance: The largest difference allowed; see `remove_experts`.

    Attributes:
        scores: One score for each expert, by mixture, once `compress` has been called.
        report: What was removed, and how it was compared.
    """

    granularity: ClassVar[str] = "experts"
    removes: ClassVar[str] = "experts"
    modes: ClassVar[tuple[str, ...]] = ("normal", "global")

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        *,
        calibrate: Callable[[nn.Module], Any] | None = None,
        data: Iterable[Any] | None = None,
        example_inputs: Any = None,
        mode: str = "normal",
        round_to: int = 1,
        verify: bool = True,
        tolerance: float | None = None,
    ) -> None:
        """Keep what was said, and check it."""
        self.model: nn.Module = model_of(model)
        self._config_list = _checked(config_list)
        if data is not None:
            calibrate = running(data, calibrate)
        if calibrate is None:
            raise ConfigError(
                f"{type(self).__name__} ranks experts by what they do on data: give data=, a list "
                "of inputs of the model, or calibrate=, a function that runs the model on some."
            )
        if not callable(calibrate):
            raise ConfigError(
                f"calibrate is {shown(calibrate)}; it must be a function that runs the model. "
                "Inputs themselves are given as data=."
            )
        if mode not in self.modes:
            raise ConfigError(f"mode is {mode!r}; it must be one of {', '.join(self.modes)}.")
        if not isinstance(round_to, int) or round_to < 1:
            raise ConfigError(f"round_to is {round_to!r}; it must be a whole number from 1.")
        self._calibrate, self._example, self._mode = calibrate, example_inputs, mode
        self._round_to, self._verify, self._tolerance = round_to, verify, tolerance
        self.scores: dict[str, Tensor] = {}
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
            sparsity: The share of its experts that each mixture loses.
            target: What may be left instead: `{"parameters": 0.6}`.
            targets: Names or class names of mixtures, or `"default"` for all.
            exclude: Names or class names of mixtures that stay whole.
            **options: Arguments of the pruner.
        """
        wanted, spared = (
            [each] if isinstance(each, str) else list(each) for each in (targets, exclude)
        )
        named = {} if "default" in wanted else {"op_names": wanted}
        rules: list[dict[str, Any]] = [{"sparsity": 0.0 if sparsity is None else sparsity, **named}]
        if spared:
            rules.append({"exclude": True, "op_names": spared})
        pruner = cls(model, rules, **options)
        pruner._target = target
        pruner.compress()
        assert pruner.report is not None
        return Compressed(pruner.report.model, pruner.report)

    _target: Mapping[str, float] | None = None

    def score(self, seen: Statistics) -> Tensor:
        """Return one score for each expert; those with the lowest are removed.

        Args:
            seen: What the experts of a mixture were seen to do with the data.
        """
        raise NotImplementedError

    def compress(self) -> Compressed[nn.Module, dict[str, dict[str, Tensor]]]:
        """Remove experts; return the smaller model, and that no masks are left.

        Raises:
            ConfigError: The model has no mixture, or too few experts would be left.
            SpeedupError: The smaller model would compute something else.
        """
        gone, example = self.choose()
        self.report = remove_experts(
            self.model, example, gone, verify=self._verify, tolerance=self._tolerance
        )
        return Compressed(self.report.model, {})

    def choose(self) -> tuple[dict[str, list[int]], Any]:
        """Rank the experts, and remove none.

        Returns:
            The numbers of those that would go, by mixture, and the example that it ran on.

        Raises:
            ConfigError: The model has no mixture, or too few experts would be left.
        """
        with bare(self.model) as plain:
            example = self._example
            if example is None:
                example = example_of(plain, self._calibrate)
            found = experts(plain, example)
            chosen = self._chosen(plain, found)
            if self._target is not None:
                mixtures = [mixture for mixture, _ in chosen]
                sparsity = choose.sparsity_for(plain, mixtures, self._target, self._round_to)
                chosen = [(mixture, sparsity) for mixture in mixtures]
            counts = [choose.number(*each, self._round_to) for each in chosen]
            if not any(counts):
                raise ConfigError(_nothing(chosen))
            watched = Experts(tuple(mixture for mixture, _ in chosen))
            seen = gather(plain, watched, self._calibrate)
            self.scores = self._scored(seen)
        if self._mode == "global":
            return choose.across(chosen, self.scores), example
        return choose.each(chosen, self.scores, self._round_to), example

    def _scored(self, seen: Mapping[str, Statistics]) -> dict[str, Tensor]:
        idle: dict[str, list[int]] = {}
        for name, each in seen.items():
            if not each.tokens:
                raise ConfigError(
                    f"The data never reached the mixture {name!r}, so nothing is known of its "
                    "experts. Give data that does, or leave it out with exclude=."
                )
            if unreached := (each.routed == 0).nonzero()[:, 0].tolist():
                idle[name] = unreached
        if idle:
            first, numbers = next(iter(idle.items()))
            more = f" and of {len(idle) - 1} more mixtures" if len(idle) > 1 else ""
            warn(
                f"No token of the data was sent to the experts {', '.join(map(str, numbers))} of "
                f"{first!r}{more}; they count as the least important. With more, or more varied, "
                "data they might not."
            )
        return {name: self.score(each) for name, each in seen.items()}

    def _chosen(self, model: nn.Module, found: Experts) -> list[tuple[Mixture, float]]:
        if not len(found):
            raise ConfigError(
                "The model has no mixture of experts: no layer was seen to choose among, or to "
                f"weigh, slices of a tensor or modules of a list, so {type(self).__name__} has "
                "nothing to prune."
            )
        kinds = {
            mixture.name: type(model.get_submodule(mixture.name)).__name__ for mixture in found
        }
        chosen: dict[str, float] = {}
        for rule in self._config_list:
            wanted = [*rule.get("op_names", ()), *rule.get("op_types", ())]
            for name in wanted:
                if name not in kinds and name not in kinds.values():
                    raise ConfigError(
                        f"The model has no mixture of experts {name!r}."
                        f"{did_you_mean(name, kinds) or nearest(name, list(kinds))}"
                    )
            for name, kind in kinds.items():
                if wanted and name not in wanted and kind not in wanted:
                    continue
                if rule.get("exclude"):
                    chosen.pop(name, None)
                else:
                    chosen[name] = float(rule["sparsity"])
        return [(mixture, chosen[mixture.name]) for mixture in found if mixture.name in chosen]


def _checked(config_list: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(config_list, Sequence) or not config_list:
        raise ConfigError(
            f"config_list is {shown(config_list)}; it must be a list of rules, such as "
            "[{'sparsity': 0.5}]."
        )
    rules = []
    for rule in config_list:
        known = {"sparsity", "op_names", "op_types", "exclude"}
        for key in rule:
            if key not in known:
                raise ConfigError(
                    f"A rule for experts has the key {key!r}, which says nothing of them."
                    f"{did_you_mean(key, known)}"
                )
        sparsity = rule.get("sparsity", 0.0 if rule.get("exclude") else None)
        if not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
            raise ConfigError(
                f"sparsity is {shown(sparsity)}; it must be the share of its experts that a "
                "mixture loses, from 0 to below 1."
            )
        rules.append(dict(rule))
    return rules


def _nothing(chosen: list[tuple[Mixture, float]]) -> str:
    if not chosen:
        return "Every mixture of the model is excluded, so no expert would be removed."
    mixture, sparsity = max(chosen, key=lambda each: each[0].experts)
    return (
        f"A sparsity of {sparsity:g} takes no whole expert out of {mixture.experts}; the least "
        f"that does is {(mixture.groups.count if mixture.groups else 1) / mixture.experts:g}."
    )


class ExpertFrequencyPruner(ExpertPruner):
    """Remove the experts that get the fewest tokens.

    The score of an expert is the share of tokens that the router sends to it. In a mixture in
    which every token goes to every expert that tells nothing.
    """

    def score(self, seen: Statistics) -> Tensor:
        """Return the share of tokens."""
        if bool((seen.routed == seen.tokens).all()):
            raise ConfigError(
                "Every token goes to every expert, so how often says nothing. Use 'reap', which "
                "looks at how much each adds."
            )
        return seen.routed / seen.tokens


class ExpertActivationPruner(ExpertPruner):
    """Remove the experts whose outputs are smallest in all.

    The score of an expert is the sum of `‖f(x)‖` over the tokens x that are sent to it, where f(x)
    is what it returns before the router weighs it; divided by the number of all tokens.
    """

    def score(self, seen: Statistics) -> Tensor:
        """Return the sum of norms."""
        if seen.norms is None:
            raise ConfigError(
                "What the experts of a mixture return cannot be told from the weights that it is "
                "multiplied with. Use 'reap', which looks at both together."
            )
        return seen.norms / seen.tokens


class ReapPruner(ExpertPruner):
    """Remove the experts that add least to the result where they are chosen.

    The score of an expert is the mean of `g(x) ‖f(x)‖` over the tokens x that are sent to it: what
    it returns, times the weight that the router gives it. An expert that is rarely chosen and then
    matters stays; one that is often chosen with a small weight goes
    (REAP, [Lasby et al.](https://arxiv.org/abs/2510.13999)).
    """

    def score(self, seen: Statistics) -> Tensor:
        """Return the mean of what was added."""
        return torch.where(seen.routed > 0, seen.added / seen.routed.clamp(min=1), 0.0)
