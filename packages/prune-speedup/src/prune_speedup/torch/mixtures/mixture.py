"""What a mixture of experts consists of, wherever its numbers are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prune_speedup.torch.heads import Place

__all__ = ["Experts", "Groups", "Mixture"]


@dataclass(frozen=True, slots=True)
class Groups:
    """A routing that first chooses groups of experts, and then experts of these groups.

    Attributes:
        count: How many groups there are; each has as many experts as any other.
        chosen: From how many of them a token may choose its experts.
        looked_at: How many experts speak for their group, and have to be there.
    """

    count: int
    chosen: int
    looked_at: int


@dataclass(frozen=True, slots=True)
class Mixture:
    """One mixture of experts.

    Attributes:
        name: The module that has both the router and the experts.
        experts: How many experts there are.
        top_k: To how many of them each token goes; None where every token goes to all.
        groups: How experts are grouped, where the routing chooses among groups first.
        router: The tensors that make the logits of the experts.
        corrections: Further tensors with a number for each expert, such as a bias that only the
            choice sees.
        tensors: Tensors that hold a slice for each expert.
        lists: Modules that hold a module for each expert.
    """

    name: str
    experts: int
    top_k: int | None
    groups: Groups | None
    router: tuple[Place, ...]
    corrections: tuple[Place, ...]
    tensors: tuple[Place, ...]
    lists: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many experts there are."""
        return self.experts

    @property
    def least(self) -> int:
        """How many experts have to stay."""
        needed = self.top_k or 1
        if self.groups is None:
            return needed
        count, chosen, looked_at = self.groups.count, self.groups.chosen, self.groups.looked_at
        return count * max(looked_at, -(-needed // chosen))

    @property
    def places(self) -> tuple[Place, ...]:
        """Every tensor with something for each expert."""
        return (*self.router, *self.corrections, *self.tensors)

    def group_of(self, expert: int) -> int:
        """The group that an expert belongs to; 0 where there are no groups.

        Args:
            expert: The number of an expert.
        """
        return expert // (self.experts // self.groups.count) if self.groups else 0

    def __str__(self) -> str:
        sent = "all experts" if self.top_k is None else f"top {self.top_k}"
        groups = self.groups.count if self.groups else 1
        grouped = f", in {groups} groups" if groups > 1 else ""
        held = [f"{name}[{axis}]" for name, axis in self.tensors] + [f"{n}.*" for n in self.lists]
        router = ", ".join(f"{name}[{axis}]" for name, axis in (*self.router, *self.corrections))
        return (
            f"{self.name or 'the model'}: {self.experts} experts, {sent}{grouped}\n"
            f"├── router: {router}\n└── experts: {', '.join(held)}"
        )


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixtures of a model, in the order of its forward.

    It is a sequence of `Mixture`, which can also be had by the names of their modules.
    """

    mixtures: tuple[Mixture, ...]

    def __len__(self) -> int:
        return len(self.mixtures)

    def __iter__(self) -> Iterator[Mixture]:
        return iter(self.mixtures)

    def __getitem__(self, key: int | str) -> Mixture:
        if isinstance(key, int):
            return self.mixtures[key]
        found = {mixture.name: mixture for mixture in self.mixtures}
        return found[key]

    def __contains__(self, name: object) -> bool:
        return any(mixture.name == name for mixture in self.mixtures)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mixtures)) or "no mixture of experts"
