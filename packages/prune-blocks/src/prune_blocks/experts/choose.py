"""How many experts of each mixture go, and which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from prune_core.errors import ConfigError, shown
from prune_speedup.torch.mixtures.mixture import Mixture

__all__ = ["across", "each", "number", "sparsity_for"]


def number(mixture: Mixture, sparsity: float, round_to: int = 1) -> int:
    """How many experts of a mixture go at a sparsity: the same number from each of its groups.

    Raises:
        ConfigError: Too few would be left.
    """
    groups = mixture.groups.count if mixture.groups else 1
    gone = groups * int(sparsity * mixture.experts / groups + 1e-9)
    while gone > 0 and (mixture.experts - gone) % round_to:
        gone -= groups
    if mixture.experts - gone < mixture.least:
        most = (mixture.experts - mixture.least) / mixture.experts
        chosen = f"it sends each token to {mixture.top_k}" if mixture.top_k else "one has to stay"
        raise ConfigError(
            f"A sparsity of {sparsity:g} leaves {mixture.experts - gone} of the {mixture.experts} "
            f"experts of {mixture.name or 'the model'!r}, and {chosen}: {mixture.least} have to "
            f"stay. Ask for {most:g} or less."
        )
    return max(gone, 0)


def each(
    mixtures: Iterable[tuple[Mixture, float]], scores: Mapping[str, Tensor], round_to: int = 1
) -> dict[str, list[int]]:
    """The experts with the lowest scores, as many of each mixture as its sparsity says."""
    gone: dict[str, list[int]] = {}
    for mixture, sparsity in mixtures:
        groups = mixture.groups.count if mixture.groups else 1
        size = mixture.experts // groups
        share = number(mixture, sparsity, round_to) // groups
        order = scores[mixture.name].reshape(groups, size).argsort(dim=1, stable=True)
        gone[mixture.name] = sorted(
            group * size + int(at) for group in range(groups) for at in order[group, :share]
        )
    return gone


def across(
    mixtures: Iterable[tuple[Mixture, float]], scores: Mapping[str, Tensor]
) -> dict[str, list[int]]:
    """The experts with the lowest scores of all mixtures together.

    A score is measured by the mean of its mixture, since layers differ in how large their numbers
    are. Each mixture keeps as many experts as it needs.
    """
    chosen = list(mixtures)
    for mixture, _ in chosen:
        if mixture.groups is not None and mixture.groups.count > 1:
            raise ConfigError(
                f"mode='global' ranks the experts of all mixtures together, and "
                f"{mixture.name!r} needs its {mixture.groups.count} groups of experts equally "
                "large. Leave mode out."
            )
    wanted = int(sum(mixture.experts * sparsity for mixture, sparsity in chosen) + 1e-9)
    ranked = sorted(
        (float(score / max(float(scores[mixture.name].mean()), 1e-30)), at, expert)
        for at, (mixture, _) in enumerate(chosen)
        for expert, score in enumerate(scores[mixture.name])
    )
    gone: list[list[int]] = [[] for _ in chosen]
    for _, at, expert in ranked:
        mixture = chosen[at][0]
        if wanted and mixture.experts - len(gone[at]) > mixture.least:
            gone[at].append(expert)
            wanted -= 1
    if wanted:
        raise ConfigError(
            f"{wanted} more experts would have to go than the mixtures can do without. Ask for "
            "less sparsity."
        )
    return {mixture.name: sorted(gone[at]) for at, (mixture, _) in enumerate(chosen)}


def sparsity_for(
    model: nn.Module, mixtures: list[Mixture], target: Mapping[str, float], round_to: int = 1
) -> float:
    """The least sparsity of all mixtures that leaves no more of a model than a target says."""
    if [*target] != ["parameters"] or not isinstance(target["parameters"], int | float):
        raise ConfigError(
            f"target is {shown(target)}; experts can be pruned to a share of the parameters, such "
            "as {'parameters': 0.6}. Each token still goes to as many experts as before, so that "
            "FLOPs and latency hardly change."
        )
    wanted = target["parameters"]
    if not 0 < wanted <= 1:
        raise ConfigError(f"target has parameters {wanted!r}; it must be above 0 and at most 1.")
    whole = sum(parameter.numel() for parameter in model.parameters())
    sizes = [_size(model, mixture) for mixture in mixtures]
    steps = sorted(
        {gone / mixture.experts for mixture in mixtures for gone in range(mixture.experts)}
    )
    least = 1.0
    for sparsity in steps:
        try:
            gone = [number(mixture, sparsity, round_to) for mixture in mixtures]
        except ConfigError:
            break
        left = 1 - sum(count * size for count, size in zip(gone, sizes, strict=True)) / whole
        least = min(least, left)
        if left <= wanted:
            return sparsity
    raise ConfigError(
        f"target asks for {wanted:g} of the parameters, and removing experts leaves {least:.3g} at "
        "least. Ask for that, or prune channels besides."
    )


def _size(model: nn.Module, mixture: Mixture) -> float:
    """How many parameters go with an expert."""
    parameters = dict(model.named_parameters())
    slices = sum(parameters[name].numel() for name, _ in mixture.places if name in parameters)
    modules = sum(
        parameter.numel()
        for name in mixture.lists
        for parameter in model.get_submodule(name).parameters()
    )
    return (slices + modules) / mixture.experts
