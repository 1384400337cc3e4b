"""What a report holds: plain data, of any framework, that is written as JSON and read again.

Everything that shows a report (the page, the model card, the terminal) reads a `Document` and
nothing else, so a report can be drawn again years later, without the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import nan

from prune_report.codec import Indices, ReportError, from_plain, to_plain

__all__ = [
    "FORMAT",
    "STAGES",
    "Change",
    "Curve",
    "Document",
    "Experts",
    "File",
    "Indices",
    "Latency",
    "Layer",
    "Loading",
    "Proof",
    "Quality",
    "Removed",
    "ReportError",
    "Stayed",
    "Step",
    "Timing",
    "Trial",
]

NONE = Indices()

STAGES = ("dense", "pruned", "small", "recovered")
"""The stages at which quality is evaluated, in their order."""

FORMAT = 1
"""The version of what `to_json` writes. It grows when an older reader would misread it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A number before and after."""

    before: float
    after: float

    @property
    def left(self) -> float:
        """The share that is left; NaN where there was nothing before."""
        return self.after / self.before if self.before else nan


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one forward takes.

    Attributes:
        median: Seconds, the median of the runs.
        spread: Seconds between the first and the third quartile of the runs; None if unknown.
        runs: How many runs; 0 if unknown.
    """

    median: float
    spread: float | None = None
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Latency:
    """Measured time before and after.

    Attributes:
        before: Of the dense model.
        after: Of the small one.
        device: On what it was measured, such as `"cpu, 4 threads"`.
        noisy: Whether the clock was too noisy to believe the difference.
    """

    before: Timing
    after: Timing
    device: str = ""
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Quality:
    """One metric at each stage; None where it was not evaluated.

    Attributes:
        metric: Its name, such as `"accuracy"`.
        dense: Before anything was pruned.
        pruned: With masks in force.
        small: After the masked channels were removed.
        recovered: After training the small model.
        higher_is_better: Whether larger numbers are better; None if unknown.
    """

    metric: str
    dense: float | None = None
    pruned: float | None = None
    small: float | None = None
    recovered: float | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared to prove that the small model computes what the masked one does.

    Attributes:
        cases: The inputs on which both ran, in words.
        difference: The largest difference, relative to the largest number of that output.
        tolerance: The largest that is allowed there; None if unknown.
        where: The output that differs most.
        inside: How many results of operators were compared on the way to the outputs.
        uncompared: Types of returned objects that were not looked into.
        unfollowed: Inputs on which the dense model runs and the small one does not.
        moved: How far the output moved on purpose, since constants were taken out; relative.
    """

    cases: tuple[str, ...] = ()
    difference: float = 0.0
    tolerance: float | None = None
    where: str = ""
    inside: int = 0
    uncompared: tuple[str, ...] = ()
    unfollowed: tuple[str, ...] = ()
    moved: float = 0.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with parameters of its own, whether or not it became smaller.

    Attributes:
        name: Its dotted name.
        type: Its class, such as `"Conv2d"`.
        parameters: How many values its parameters have.
        flops: Floating-point operations for the example; None if unknown.
        inputs: Input channels; None where it has none to speak of, as a normalisation.
        outputs: Output channels.
        removed: Which output channels went, by the numbers that they had.
    """

    name: str
    type: str
    parameters: Change
    flops: Change | None = None
    inputs: Change | None = None
    outputs: Change | None = None
    removed: Indices = NONE


@dataclass(frozen=True, slots=True)
class Removed:
    """A block or a residual branch that was taken out as a whole.

    Attributes:
        name: The name that it had.
        kind: `"block"`, `"attention"`, `"mlp"`, `"convolution"` …
        parameters: How many values its parameters had.
        flops: What it took to run; None if unknown.
    """

    name: str
    kind: str
    parameters: int = 0
    flops: int | None = None


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of one mixture.

    Attributes:
        name: The module that holds them.
        experts: How many, before and after.
        removed: Which went, by the numbers that they had.
    """

    name: str
    experts: Change
    removed: Indices = NONE


@dataclass(frozen=True, slots=True)
class Stayed:
    """Channels that were to go and stayed, for one cause.

    Attributes:
        cause: What keeps them.
        advice: The one thing to do about it.
        channels: How many; 0 where that is not known.
        layers: Where.
    """

    cause: str
    advice: str = ""
    channels: int = 0
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """How a metric falls as one layer is pruned alone.

    Attributes:
        layer: The layer.
        points: (sparsity, metric), by ascending sparsity.
        metric: The name of the metric.
    """

    layer: str
    points: tuple[tuple[float, float], ...]
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a schedule.

    Attributes:
        step: The number of the optimizer's step, or of the round.
        sparsity: The share of what it prunes that is masked.
        metrics: What was measured then, by name.
    """

    step: int
    sparsity: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a search.

    Attributes:
        number: Which, from 0.
        score: What came of it; None for one that failed.
        sparsity: The share of weights that it pruned; None if unknown.
        state: `"complete"`, `"failed"` or `"pruned"`.
        plan: The sparsity that it gave to each layer.
    """

    number: int
    score: float | None = None
    sparsity: float | None = None
    state: str = "complete"
    plan: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loading:
    """How to load the small model.

    Attributes:
        code: Lines of Python.
        note: What to know besides.
    """

    code: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """A file that belongs to the result.

    Attributes:
        path: Where it is, relative to the report.
        what: What it is, in a few words.
        bytes: Its size; None if unknown.
    """

    path: str
    what: str = ""
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """All that a report says. Everything but the title may be missing.

    Attributes:
        title: What stands at the top, such as `"ResNet"`.
        format: The version of this layout, `FORMAT`.
        model: The class of the model.
        framework: `"torch"` or `"keras"`.
        created: When, as ISO 8601.
        algorithm: What decided, such as `"l1"`.
        form: `"model"`, or `"graph"` where the forward could not follow.
        parameters: Number of parameters.
        flops: Floating-point operations of one forward of the example.
        bytes: Memory that parameters and buffers take.
        activations: The most bytes that results held at any moment of one forward.
        zeros: How many values of the parameters are zero.
        latency: Measured time of a forward.
        quality: Metrics at each stage.
        proof: What was compared; None where nothing was.
        asked: How many channels the masks cover as a whole, counted layer by layer.
        layers: Every layer with parameters.
        blocks: Blocks and branches that were taken out.
        experts: Mixtures that have fewer experts now.
        stayed: What stayed although it was to go, by cause, the most frequent first.
        sensitivity: How a metric falls as each layer is pruned alone.
        schedule: The sparsity over the training.
        trials: The trials of a search.
        optimize_mode: `"maximize"` if the search wants high scores, `"minimize"` if low ones.
        loading: How to load the small model.
        files: What else was written.
        notes: Sentences that the reader must not miss.
        seconds: How long each stage took.
        versions: Of Python and of what was used, by name.
        recipe: The recipe, as it was written.
    """

    title: str
    format: int = FORMAT
    model: str = ""
    framework: str = ""
    created: str = ""
    algorithm: str = ""
    form: str = "model"
    parameters: Change | None = None
    flops: Change | None = None
    bytes: Change | None = None
    activations: Change | None = None
    zeros: Change | None = None
    latency: Latency | None = None
    quality: tuple[Quality, ...] = ()
    proof: Proof | None = None
    asked: int = 0
    layers: tuple[Layer, ...] = ()
    blocks: tuple[Removed, ...] = ()
    experts: tuple[Experts, ...] = ()
    stayed: tuple[Stayed, ...] = ()
    sensitivity: tuple[Curve, ...] = ()
    schedule: tuple[Step, ...] = ()
    trials: tuple[Trial, ...] = ()
    optimize_mode: str = "maximize"
    loading: Loading | None = None
    files: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    recipe: str = ""

    def to_json(self) -> str:
        """Return it as JSON; what is as it is by default is left out."""
        return json.dumps(to_plain(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Document:
        """Read what `to_json` wrote.

        Args:
            text: What `to_json` wrote.

        Raises:
            ReportError: It is no report, a damaged one, or one of a newer release.
        """
        try:
            plain = json.loads(text, parse_constant=_no_constant)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ReportError(f"The report is not JSON: {error}.") from None
        if not isinstance(plain, dict) or type(plain.get("format")) is not int:
            raise ReportError(
                f'This is no report: it must be an object with "format": {FORMAT}, as '
                "prune_report.write() writes to report.json."
            )
        if not 1 <= plain["format"] <= FORMAT:
            raise ReportError(
                f"The report has format {plain['format']}, and this prune-report reads up to "
                f"{FORMAT}: `pip install --upgrade prune-report`."
            )
        return from_plain(cls, plain)


def _no_constant(name: str) -> float:
    raise ReportError(f"The report holds {name}, which is not JSON.")
