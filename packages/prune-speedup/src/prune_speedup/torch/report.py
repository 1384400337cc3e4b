"""What speedup did: in numbers, in names, and as a table."""

import json
from dataclasses import asdict, dataclass, field
from math import nan
from os import PathLike
from typing import Any

import torch
from torch import nn

from prune_speedup.notebook import as_html
from prune_speedup.torch.certificate.write import Certificate
from prune_speedup.torch.layers import LayerSize
from prune_speedup.torch.measure import Running
from prune_speedup.torch.overview import DONE, first_screen
from prune_speedup.torch.proof.compare import Difference
from prune_speedup.torch.saving import ConfigChange
from prune_speedup.torch.surgery import save_pruned
from prune_speedup.torch.unremoved import Kept
from prune_speedup.torch.vocabulary.token_map import TokenMap

__all__ = ["Change", "SpeedupReport"]

_NOT_PLAIN = {"model", "masks", "slices", "difference", "changes", "config", "running"}


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor that became smaller."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(slots=True)
class SpeedupReport:
    """What `shrink` did to a model.

    Attributes:
        model: The model itself, smaller; or the graph that was shrunk in its place.
        form: "model", or "graph" where the model's own forward could not follow.
        cause: Why it could not.
        changes: Every tensor that became smaller.
        removed: How many units went.
        asked: How many channels the masks cover as a whole, counted module by module.
        kept: Those that stay, one entry for each cause.
        shortfall: A sentence on what stays although it was asked for, of which `shrink` warned;
            empty if that is not notable.
        masks: The masks still in force, `{module: {tensor: mask}}`, in the new shapes.
        attributes: (module, attribute, old, new) of every size that was written down.
        corrections: (module, function of torch, expression) of the calls whose sizes are corrected.
        returned: Sizes that could not be repaired and whose units were therefore left alone.
        unknown: Operators without a rule, and a module that used each; what they touch stays.
        uncompared: Types of returned objects, such as a cache, that the proof does not look into.
        constants: What was chosen for the constants that masked channels leave behind.
        moved: How far the output is from that of the masks as they were given, where constants
            were zeroed or folded; relative to its largest number.
        config: What became of the config that the model carries, if it carries one.
        live_norms: How many norms now run over fewer indices.
        parameters: Number of parameters before and after.
        zeros: Values of the parameters that are zero: in the masked model, and in the small one.
        bytes: Memory that parameters and buffers take, before and after.
        running: Measured time and working memory of a forward, with `measure=True`.
        flops: Floating-point operations of one forward of the example, before and after.
        comparison: Where the masked and the small model differ most, and what is allowed there;
            `None` where they were not compared.
        verified: The inputs on which the two were compared.
        unfollowed: What the small model does not run on, though the original does, and its error.
        narrower: What the model returns with fewer channels where it is asked for what it has
            inside, by the arguments that ask, such as `output_hidden_states=True`.
        inside: How many results of operators were compared on the way to the outputs.
        seconds: How long each stage took.
        slices: The indices that stayed of each tensor that became smaller, `{name: {axis: them}}`.
        gained: Names of biases that layers have gained, since a constant was folded into them.
        layers: Every layer with parameters: its channels, parameters and FLOPs before and after.
        experts: Of each mixture that has lost some, how many experts it had, and which stayed.
        tokens: Which tokens stayed in a vocabulary that has lost some, and what their ids are now.
        certificate: What became of the certificate that was asked for.
    """

    model: nn.Module = field(repr=False)
    form: str = "model"
    cause: str = ""
    changes: list[Change] = field(default_factory=list)
    removed: int = 0
    asked: int = 0
    kept: list[Kept] = field(default_factory=list)
    shortfall: str = ""
    masks: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict, repr=False)
    attributes: list[tuple[str, str, Any, Any]] = field(default_factory=list)
    corrections: list[tuple[str, str, str]] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    uncompared: list[str] = field(default_factory=list)
    constants: str = "exact"
    moved: float = 0.0
    config: ConfigChange | None = None
    live_norms: int = 0
    parameters: tuple[int, int] = (0, 0)
    zeros: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    running: Running | None = None
    flops: tuple[int, int] = (0, 0)
    comparison: Difference | None = None
    verified: list[str] = field(default_factory=list)
    unfollowed: dict[str, str] = field(default_factory=dict)
    narrower: dict[str, list[str]] = field(default_factory=dict)
    inside: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    slices: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict, repr=False)
    gained: list[str] = field(default_factory=list)
    layers: list[LayerSize] = field(default_factory=list, repr=False)
    experts: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    tokens: TokenMap | None = None
    certificate: Certificate | None = None

    @property
    def difference(self) -> float:
        """The largest difference between the masked and the small model.

        Relative to the largest number of the output; NaN where they were not compared.
        """
        return nan if self.comparison is None else self.comparison.relative

    def table(self) -> str:
        """Every tensor that became smaller, and what that is worth, one a line."""
        rows = [("tensor", "before → after")]
        rows += [
            (change.name, f"{_shape(change.before)} → {_shape(change.after)}")
            for change in self.changes
        ]
        rows += self._figures()
        if self.form == "graph":
            rows.append(("form", f"a graph, not the model given: {self.cause}"))
        if self.moved:
            said = f"{DONE[self.constants]}, which moved the output by {self.moved:.2e}"
            rows.append(("constants", said))
        if self.config is not None:
            rows += [("config", line) for line in self.config.lines()]
        rows += [("kept", str(each)) for each in self.kept]
        rows += [
            ("unknown", f"{operator} in {module or 'the model'}: what it touches stays")
            for operator, module in self.unknown.items()
        ]
        rows += [("not followed", why) for why in self.unfollowed.values()]
        rows += [("narrower", _narrower(asks, paths)) for asks, paths in self.narrower.items()]
        rows += [("not compared", f"{kind}, which the model returns") for kind in self.uncompared]
        if self.comparison is not None:
            on = ", ".join(self.verified)
            rows.append(("difference", f"{self.difference:.2e} (relative), on {on}"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {said}" for name, said in rows)

    def _figures(self) -> list[tuple[str, str]]:
        """Zeros, bytes and time, which have little to do with each other."""
        zeros, values = self.zeros, self.parameters
        share = [f"{zeros[at] / max(1, values[at]):.1%}" for at in (0, 1)]
        rows = [
            ("parameters", _change(*values)),
            ("zeros", f"{zeros[0]:,} → {zeros[1]:,} ({share[0]} → {share[1]})"),
            ("bytes", _change(*self.bytes)),
            ("flops", _change(*self.flops)),
        ]
        if self.running is None:
            return [*rows, ("latency", "not measured; shrink(..., measure=True) does")]
        before, after = (1000 * seconds for seconds in self.running.seconds)
        return [
            *rows,
            ("latency", f"{before:.2f} → {after:.2f} ms ({after / before:.1%})"),
            ("activations", f"{_change(*self.running.activations)} bytes at most"),
        ]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the small model, as it is now, to a file that `load_pruned` reads.

        Args:
            path: The file to write.
        """
        save_pruned(self.model, path)

    def to_json(self) -> str:
        """Everything but the tensors, as JSON."""
        plain = {
            name: getattr(self, name)
            for name in self.__slots__
            if name
            not in (
                *("model", "masks", "slices", "comparison"),
                *("changes", "kept", "config", "running", "layers", "tokens"),
            )
        }
        plain["changes"] = [asdict(change) for change in self.changes]
        plain["layers"] = [asdict(layer) for layer in self.layers]
        plain["kept"] = [asdict(each) for each in self.kept]
        plain["difference"] = None if self.comparison is None else self.difference
        plain["comparison"] = None if self.comparison is None else asdict(self.comparison)
        plain["running"] = None if self.running is None else asdict(self.running)
        plain["tokens"] = None if self.tokens is None else asdict(self.tokens)
        plain["config"] = None if self.config is None else asdict(self.config)
        return json.dumps(plain, indent=2)

    def __str__(self) -> str:
        return first_screen(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self)


def _change(before: int, after: int) -> str:
    share = f" ({after / before:.1%})" if before else ""
    return f"{before:,} → {after:,}{share}"


def _narrower(asks: str, paths: list[str]) -> str:
    more = f" and {len(paths) - 1} more" if paths[1:] else ""
    return f"with {asks} it returns {paths[0] or 'its output'}{more} with fewer channels"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
