"""A round of AutoCompress: search, train towards what was found, make small, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from prune_speedup.search.rounds import PruningInRounds
from prune_tf.admm import ADMMPruner
from prune_tf.masks import hold_masks, masks_of, put_masks, unwrap
from prune_tf.pruning.closing import masks_that_go
from prune_tf.pruning.pruner import Pruner, coupling_in
from prune_tf.pruning.targets import Target
from prune_tf.search.annealing import SimulatedAnnealingPruner
from prune_tf.search.autocompress.stages import Stages, as_it_is
from prune_tf.search.runner import score_from
from prune_tf.seeds import seeded
from prune_tf.speedup.find_units import both
from prune_tf.speedup.run import shrink

__all__ = ["AutoCompressRounds"]

# What a part of a round draws depends on the seed and on the round, not on the parts before it.
TRAINING_SEED, SHRINKING_SEED, TUNING_SEED = 600_000, 700_000, 800_000


class AutoCompressRounds(PruningInRounds):
    """Does what a round consists of; `AutoCompressPruner` goes through the rounds.

    Attributes:
        bound_model: The model at the end of the last complete round.
        rounds: How many rounds there are.
        searches: For each round, what its search has tried.
    """

    bound_model: keras.Model
    searches: list[list[dict[str, Any]]]
    rho: float
    finetuner: Callable[[keras.Model], Any] | None
    evaluate: Callable[[keras.Model], Any]
    dummy_input: Any
    pruning_algorithm: str | type[Pruner]
    pruning_params: Mapping[str, Any]
    _kind: type[Pruner]
    _search: dict[str, Any]
    _admm: dict[str, Any]
    _stages: Stages

    def _round(self, number: int) -> tuple[keras.Model, dict[str, float], dict[str, Any]]:
        """Go through a round, which changes weights and masks of the model.

        Returns:
            The model that it ends with, what is left then, and what came of it.
        """
        sparsities, left = self._allocate(number)
        self._train(number, sparsities)
        model = self.bound_model
        if self.speedup and any(sparsities.values()):
            self._stages.add(model)
            model = self._shrunk(model)
        with seeded(self._seed_of(number) + TUNING_SEED):
            if self.finetuner is not None:
                self.finetuner(model)
                hold_masks(model)
            score = score_from(self.evaluate(model))
        reached = self._sparsities_of(model)
        sparsity = sum(reached[n] * self._sizes[n] for n in reached) / sum(self._sizes.values())
        more = {"left": left} if self.target is not None else {}
        said = {"trial": number - 1, "sparsity": sparsity, **more, "score": score}
        return model, left, {**said, "sparsities": reached}

    def _allocate(self, number: int) -> tuple[dict[str, float], dict[str, float]]:
        """Search for how much each layer is to lose by the end of the round.

        Returns:
            That, and what is left of the dense model then.
        """
        rules, target = self._rules_of(number), self._target_of(number)
        if not target and not any(entry.get("sparsity") for entry in rules):
            self.searches.append([])
            return dict.fromkeys(self._sizes, 0.0), self._left  # little enough is left already
        begin = as_it_is(self.bound_model)
        unwrap(self.bound_model)
        search = self._searching(rules, target, number, self._part(number))
        search._base = begin.masks
        search.compress()
        if not search.complete:
            raise KeyboardInterrupt  # which the search has taken for itself
        assert search.best is not None
        begin.put_back(clean=True)
        self.searches.append(search.history)
        if not target:
            return search.best, self._left
        left = search.budget.left(search.best)
        before = self._left if self.speedup else dict.fromkeys(left, 1.0)
        return search.best, self._left | {kind: before[kind] * left[kind] for kind in left}

    def _searching(
        self,
        rules: Sequence[Mapping[str, Any]],
        target: Mapping[str, float] | None,
        number: int,
        folder: Path | None,
    ) -> SimulatedAnnealingPruner:
        search = SimulatedAnnealingPruner(
            self.bound_model,
            rules,
            self.evaluate,
            pruning_algorithm=self.pruning_algorithm,
            pruning_params=self.pruning_params,
            target=target,
            dummy_input=self.dummy_input,
            experiment_data_dir=folder,
            seed=self._seed_of(number),
            **self._search,
        )
        # What is masked goes, and with it the inputs of other layers: that counts as well.
        search._counts_removed = self.speedup
        return search

    def _train(self, number: int, sparsities: Mapping[str, float]) -> None:
        """Train weights towards these sparsities, and prune them."""
        rules = [
            {"op_names": [name], "sparsity": sparsity, "rho": self.rho}
            for name, sparsity in sparsities.items()
        ]
        folder, seed = self._part(number), self._seed_of(number) + TRAINING_SEED
        with seeded(seed):
            admm = ADMMPruner(
                self.bound_model,
                rules,
                pruning_algorithm=self.pruning_algorithm,
                pruning_params=self.pruning_params,
                checkpoint=None if folder is None else folder / "admm.safetensors",
                seed=seed,
                **self._admm,
            )
            admm.compress()
            if len(admm.history) < admm.settings.iterations:
                raise KeyboardInterrupt  # which ADMM has taken for itself
            if admm.pruner.coupling is not None:
                # What follows a masked channel goes with it, such as the offset of a batch norm.
                going = masks_that_go(admm.pruner, lambda target: sparsities[target.name])
                put_masks(self.bound_model, both(masks_of(self.bound_model), going))

    def _shrunk(self, model: keras.Model) -> keras.Model:
        """Return a model without what is masked; what cannot be removed stays masked."""
        with seeded(self.seed + SHRINKING_SEED):
            return shrink(model, self.dummy_input).model

    def _sparsities_of(self, model: keras.Model) -> dict[str, float]:
        """Return the ratio of its weights that each layer has lost, masked or removed."""
        left = {each.name: int(each.alive.sum()) for each in self._targets_in(model)}
        return {name: 1.0 - left[name] / size for name, size in self._sizes.items()}

    def _targets_in(self, model: keras.Model) -> list[Target]:
        """Return what the rules select of a model, as the pruner of a round sees it."""
        mode = self.pruning_params.get("mode", "normal")
        return self._kind.targets_in(model, self._rules, coupling_in(model, mode))

    def _sizes_now(self, names: Collection[str]) -> int:
        targets = self._targets_in(self.bound_model)
        return sum(each.alive.size for each in targets if each.name in names)
