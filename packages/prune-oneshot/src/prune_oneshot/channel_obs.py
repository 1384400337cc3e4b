"""Coupled channels in the order in which the others can best make up for them."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from prune_core import ConfigError
from prune_core.pruning.pruner import ConfigList
from prune_oneshot.solvers import check_damping, hessian_of
from prune_oneshot.units import Reader, UnitPruner, UnitScores, readers_of
from prune_toolkit import DataCollector, InputWatch, Statistics
from prune_toolkit.basic import Options
from prune_toolkit.blockwise import Walk
from prune_toolkit.calibration.layers import has_bias
from prune_toolkit.reconstruct.layers import naming
from prune_toolkit.reconstruct.solve import factor

__all__ = ["ChannelOBSPruner", "EliminationCollector"]


class EliminationCollector(DataCollector):
    """Ranks the units of each group by eliminating one after the other, the cheapest first.

    Args:
        compressor: A pruner with a `coupling`, and `damping` and `rounds`.
    """

    compressor: ChannelOBSPruner

    def collect(self) -> dict[str, Tensor]:
        """Return the place of each channel's unit in the order of elimination."""
        pruner = self.compressor
        readers = readers_of(pruner.coupling)
        scores = UnitScores(pruner.coupling)
        groups = [torch.tensor(sorted(group.labels)) for group in pruner.coupling.units.groups]
        waiting = {
            number: {
                name for name, each in readers.items() if bool(torch.isin(units, each.units).any())
            }
            for number, units in enumerate(groups)
        }
        walk = Walk(
            pruner,
            {name: reader.module for name, reader in readers.items()},
            *pruner.calibration_of([]),
            keep=pruner.keep,
            tokens=pruner.tokens,
            dense=True,
        )
        seen: dict[str, Statistics] = {}
        for block in walk:
            with InputWatch({n: walk.layers[n] for n in block.layers}, products=True) as watch:
                block.run(watch.begin)
            seen |= watch.gathered()
            for number in [n for n, names in waiting.items() if names and names <= seen.keys()]:
                mine = [(readers[name], seen[name]) for name in sorted(waiting.pop(number))]
                scores.add(groups[number], self._places(groups[number], mine))
            wanted = {name for names in waiting.values() for name in names}
            seen = {name: found for name, found in seen.items() if name in wanted}
        return scores.over_channels(pruner)

    def _places(self, units: Tensor, readers: list[tuple[Reader, Statistics]]) -> Tensor:
        """Return the place of each unit in the order of elimination, from 1."""
        problems = [_Problem(units, *reader, self.compressor.damping) for reader in readers]
        left = torch.arange(len(units))
        places = torch.zeros(len(units), dtype=torch.float64)
        each = -(-len(units) // self.compressor.rounds)
        while True:
            costs = torch.stack([problem.costs(left) for problem in problems]).sum(0)
            order = costs.argsort(stable=True)
            last = len(left) <= each
            gone = order if last else order[:each]
            start = len(units) - len(left) + 1
            places[left[gone]] = torch.arange(start, start + len(gone), dtype=torch.float64)
            if last:
                break
            for problem in problems:
                problem.drop(left[gone])
            left = left[order[len(gone) :].sort().values]
        return places


class _Problem:
    """What one layer's output loses with some units, when the others make up for them.

    Of the features that are left it keeps the inverse H⁻¹ of their moments and the weight W that is
    fitted to them. When features g go and k stay, both follow without another decomposition:

        S = ((H⁻¹)_gg)⁻¹ (H⁻¹)_gk,    H⁻¹ ← (H⁻¹)_kk − (H⁻¹)_kg S,    W ← W_k − W_g S
    """

    def __init__(
        self, units: Tensor, reader: Reader, statistics: Statistics, damping: float
    ) -> None:
        self.name = reader.name
        moments = statistics.covariance if has_bias(reader.module) else statistics.gram
        hessian = hessian_of(reader.name, moments, damping)
        with naming(self.name):
            self.inverse = torch.cholesky_inverse(factor(hessian))
        self.weight = reader.weight().to(hessian.dtype)
        self.unit_of = reader.unit_of_feature()
        places = [(self.unit_of == unit).nonzero().flatten() for unit in units]
        # A unit has as many features in this layer as any other, or none.
        self.present = torch.tensor([len(place) > 0 for place in places])
        self.features = torch.stack([place for place in places if len(place)])
        self.row = self.present.cumsum(0) - 1
        self.left = torch.arange(len(self.unit_of))

    def drop(self, units: Tensor) -> None:
        """Take some units out; the others are fitted anew."""
        here = units[self.present[units]]
        gone = torch.isin(self.left, self.features[self.row[here]].flatten())
        if not bool(gone.any()):
            return
        g, k = (at.nonzero().flatten().to(self.inverse.device) for at in (gone, ~gone))
        among = self.inverse[:, g]
        with naming(self.name):
            share = torch.cholesky_solve(among[:, :, k], factor(among[:, :, g]))
        self.inverse = self.inverse[:, k][:, :, k].baddbmm_(
            among[:, :, k].transpose(1, 2), share, alpha=-1
        )
        self.weight = self.weight[:, :, k].baddbmm_(self.weight[:, :, g], share, alpha=-1)
        self.left = self.left[~gone]

    def costs(self, units: Tensor) -> Tensor:
        """Return what each of some units costs now: `tr(W_u (H⁻¹)_uu⁻¹ W_uᵀ)`."""
        costs = torch.zeros(len(units), dtype=torch.float64)
        here = self.present[units]
        at = torch.empty(len(self.unit_of), dtype=torch.long)
        at[self.left] = torch.arange(len(self.left))
        places = at[self.features[self.row[units[here]]]].to(self.inverse.device)
        own = self.inverse[:, places.unsqueeze(2), places.unsqueeze(1)]
        weight = self.weight[:, :, places].movedim(1, 3)  # (groups, units, width, outputs)
        costs[here] = (torch.linalg.solve(own, weight) * weight).sum((0, 2, 3)).cpu()
        return costs


class ChannelOBSPruner(UnitPruner):
    """Prunes the coupled channels that the others can best make up for.

    With the damped second moments H of the inputs of a layer that reads them, the loss of its
    output without unit u, when all other weights are fitted anew, is

        score(u) = tr(W[:, u] ((H⁻¹)[u, u])⁻¹ W[:, u]ᵀ)

    summed over the layers that read u. Units are eliminated one share after the other; in
    between, W and H⁻¹ are those of what is left. `reconstruct` is `"least_squares"` unless given,
    the fit that the score counts on.

    Meng et al., OSSCAR: One-Shot Structured Pruning in Vision and Language Models with
    Combinatorial Optimization, whose local search this greedy one replaces,
    https://arxiv.org/abs/2403.12983; Kurtic et al., ZipLM, https://arxiv.org/abs/2302.04089

    Args:
        model: The model, wrapped in place.
        config_list: The rules.
        mode: Units are always coupled: `"dependency_aware"` is the only one.
        dummy_input: What the model is traced with; what `calibrate` calls it with first, unless
            given.
        rounds: In how many shares units are eliminated.
        damping: What is added to the diagonal of H, as a share of its mean.
        **options: `calibrate=`, which is needed, and what else `BasicPruner` takes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from prune_oneshot import ChannelOBSPruner
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> inputs = torch.randn(64, 4)
        >>> pruner = ChannelOBSPruner(
        ...     model,
        ...     [{"sparsity": 0.5, "op_names": ["0"]}],
        ...     calibrate=lambda model: model(inputs),
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["0"]["bias"].sum())
        3
    """

    # A place in the order of one group says nothing of another group.
    modes: ClassVar[tuple[str, ...]] = ("dependency_aware",)

    def __init__(
        self,
        model: nn.Module,
        config_list: ConfigList,
        mode: str = "dependency_aware",
        dummy_input: Any = None,
        *,
        rounds: int = 16,
        damping: float = 0.01,
        **options: Unpack[Options],
    ) -> None:
        if not isinstance(rounds, int) or rounds < 1:
            raise ConfigError(f"rounds is {rounds!r}; it must be a whole number of at least 1.")
        check_damping(damping)
        self.rounds, self.damping = rounds, damping
        options.setdefault("reconstruct", "least_squares")
        super().__init__(model, config_list, mode, dummy_input, **options)

    def collector(self) -> DataCollector:
        """Eliminate units."""
        return EliminationCollector(self)
