"""The loss of a student that learns from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from prune_core.compressed import model_of
from prune_core.errors import ConfigError, did_you_mean, shown
from prune_core.masking import bare
from prune_recover.batches import call_of, device_of, logits_of, moved
from prune_recover.hidden import HiddenStates
from prune_recover.losses import COMPARISONS, IGNORED, averaged, label_error
from prune_recover.notes import Notes
from prune_toolkit.calibration.watch import TokenMask, padding_of
from prune_toolkit.running.restore import evaluating, only_run

__all__ = ["Distiller"]

TERMS = ("logits", "hidden", "labels")

Compare = str | Callable[[Tensor, Tensor], Tensor]


class Distiller:
    """The loss of a student: how far it is from its teacher, and from the labels if there are any.

    `w₁ · T² · KL(teacher ‖ student) + w₂ · error of hidden states + w₃ · loss of the labels`

    It notes what the student is called with, and runs the teacher on the same, in eval mode and
    without gradients. So it needs no more than what the student returned, and fits into any loop.

    Args:
        student: The model that is trained: small, masked, or with zeros in its weights.
        teacher: The model that it is to be like, most often the one before pruning. It is left as
            it is. With None, there are only the labels.
        temperature: By which logits are divided before they are compared, T.
        hidden: Layers whose outputs are compared as well, `{layer of the student: layer of the
            teacher}`, or a list of names that both have. The error is the squared one relative to
            the teacher's mean square.
        weights: Of the terms, such as `{"logits": 1.0, "hidden": 0.1, "labels": 0.5}`; 1 unless
            said.
        compare: How outputs are compared: `"kl"` for one class of several, `"bce"` for yes or no
            of each, `"mse"` for numbers, or a function of the student's and the teacher's.
        logits: Where outputs have their logits: a key, a place, or a function of the outputs;
            needed only where they are not called so and not the first tensor.
        label_loss: A function of outputs and labels that returns their loss. Unless given, it is
            the model's own if it is one of transformers, and cross entropy otherwise.
        axis: The axis of the classes; unless given, the last of two or three axes, and the second
            of more.
        project: Whether hidden states may differ in width, with a learned matrix between them; see
            `prepare`.
        tokens: Which tokens are no padding and count, a function of the arguments of a call; by
            its `attention_mask` unless given.

    Attributes:
        terms: The terms of the last loss, by name, without their weights.

    Raises:
        ConfigError: Something does not fit, such as a layer that is not there.

    Example:
        ```python
        distiller = Distiller(small, dense)
        for inputs, labels in batches:
            optimizer.zero_grad()
            distiller.loss(small(inputs), labels).backward()
            optimizer.step()
        ```
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        temperature: float = 2.0,
        hidden: Mapping[str, str] | Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        compare: Compare = "kl",
        logits: Any = None,
        label_loss: Callable[[Any, Any], Tensor] | None = None,
        axis: int | None = None,
        project: bool = False,
        tokens: TokenMask = padding_of,
    ) -> None:
        self.student, self.teacher = _model(student), None if teacher is None else _model(teacher)
        self._check_apart()
        if not temperature > 0:
            raise ConfigError(f"temperature is {shown(temperature)}; it must be more than 0.")
        if not callable(compare) and compare not in COMPARISONS:
            raise ConfigError(
                f"compare is {shown(compare)}; it must be one of {', '.join(COMPARISONS)}, or a "
                f"function of the student's and the teacher's.{did_you_mean(compare, COMPARISONS)}"
            )
        self.temperature, self.compare, self.axis = float(temperature), compare, axis
        self.logits, self.label_loss, self.tokens = logits, label_loss, tokens
        self.weights = _weights(weights)
        self.hidden = HiddenStates(hidden, project=project)
        if self.teacher is None and self.hidden.pairs:
            raise ConfigError("hidden= compares with a teacher, and teacher is None.")
        self.terms: dict[str, Tensor] = {}
        self._theirs: Notes | None = None
        self._ours = Notes(self.student, self.hidden.pairs, "student")
        if self.teacher is not None:
            try:
                self._theirs = Notes(self.teacher, self.hidden.pairs.values(), "teacher")
            except BaseException:
                self._ours.remove()
                raise

    def _check_apart(self) -> None:
        """Refuse a teacher that would be trained with the student."""
        if self.teacher is None:
            return
        held = {id(parameter): name for name, parameter in self.teacher.named_parameters()}
        for name, parameter in self.student.named_parameters():
            if id(parameter) in held:
                raise ConfigError(
                    f"Student and teacher share a parameter, {name!r}, so the teacher would be "
                    "trained too. Prune a copy, copy.deepcopy(model), and keep the model as the "
                    "teacher; or of a masked model take "
                    "prune_core.unwrap(copy.deepcopy(model), apply=False)."
                )

    # --- the loss ------------------------------------------------------------------------------

    def loss(self, outputs: Any, labels: Any = None, num_items_in_batch: Any = None) -> Tensor:
        """Return the loss of what the student has just returned.

        Args:
            outputs: What the last call of the student returned, in any form.
            labels: If there are any. Of a model that was called with labels, its own loss is
                taken.
            num_items_in_batch: What a `Trainer` of transformers gives: over how many labels the
                loss of several batches is averaged.

        Raises:
            ConfigError: There is nothing to learn from, or something does not fit.
        """
        call, ours = self._ours.take()
        if call is None:
            raise ConfigError(
                "The student has not been called since the last loss. Call it, and give loss() "
                "what it returns: distiller.loss(student(inputs), labels)."
            )
        terms: dict[str, Tensor] = {}
        if self.teacher is not None:
            padding = self.tokens(*call)
            answer, theirs = self._ask(call)
            if self.weights["logits"]:
                terms["logits"] = self._logits_error(outputs, answer, padding)
            if self.hidden.pairs and self.weights["hidden"]:
                terms["hidden"] = self.hidden.error(ours, theirs, padding)
        if self.weights["labels"]:
            found = self._labels_error(outputs, labels, asked="labels" in call[1])
            if found is not None:
                terms["labels"] = found
        if not terms:
            raise ConfigError(
                "There is nothing to learn from: no labels, and no teacher, or their weights are "
                "0. Give a teacher, labels, or a weight."
            )
        self.terms = {name: term.detach() for name, term in terms.items()}
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        if num_items_in_batch is not None and isinstance(labels, Tensor):
            total = total * (labels != IGNORED).sum() / num_items_in_batch
        return total

    __call__ = loss

    @property
    def answer(self) -> Any:
        """What the student returned when it was called last; forgotten by `loss`."""
        return self._ours.answer

    def prepare(self, batch: Any, run: Callable[[nn.Module, Any], Any] | None = None) -> Self:
        """Make the matrices between hidden states of different widths, from one batch.

        It runs both models once and leaves them as they are. Give what `parameters()` has
        afterwards to the optimizer, beside the student's.

        Args:
            batch: A batch, in any form that `recover` takes.
            run: Runs a model on a batch of another form.
        """
        batch = moved(batch, device_of(self.student))
        with torch.no_grad(), only_run(self.student):
            if run is None:
                args, kwargs, _ = call_of(self.student, batch)
                self.student(*args, **kwargs)
            else:
                run(self.student, batch)
        call, ours = self._ours.take()
        if call is None:
            raise ConfigError("The student was not called with the batch.")
        self.hidden.fit(ours, self._ask(call)[1])
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the matrices that are trained with the student; none unless widths differ."""
        return self.hidden.maps.parameters()

    def _ask(self, call: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, Any]:
        """Return the teacher's answer to a call of the student, and its hidden states."""
        assert self.teacher is not None
        assert self._theirs is not None
        args, kwargs = moved(call, device_of(self.teacher))
        # It would compute a loss of them that nobody needs.
        kwargs = {name: value for name, value in kwargs.items() if name != "labels"}
        with torch.no_grad(), evaluating(self.teacher):
            answer = self.teacher(*args, **kwargs)
        return answer, self._theirs.take()[1]

    def _logits_error(self, outputs: Any, answer: Any, padding: Tensor | None) -> Tensor:
        ours = logits_of(outputs, self.logits, "student")
        theirs = logits_of(answer, self.logits, "teacher").to(ours.device)
        if ours.shape != theirs.shape:
            raise ConfigError(
                f"The student's logits have the shape {tuple(ours.shape)}, the teacher's "
                f"{tuple(theirs.shape)}. Both must answer the same question: exclude the last "
                "layer from pruning."
            )
        if not isinstance(self.compare, str):
            return self.compare(ours, theirs)
        each = COMPARISONS[self.compare](ours, theirs, self.temperature, self._classes(ours))
        return averaged(each, padding)

    def _classes(self, logits: Tensor) -> int:
        if self.axis is not None:
            return self.axis
        return 1 if logits.ndim > 3 else -1

    def _labels_error(self, outputs: Any, labels: Any, *, asked: bool) -> Tensor | None:
        if labels is not None:
            if self.label_loss is not None:
                return self.label_loss(outputs, labels)
            ours = logits_of(outputs, self.logits, "student")
            return label_error(self.student, ours, labels, self._classes(ours))
        own = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if asked and isinstance(outputs, tuple):  # as a model of transformers returns it
            own = outputs[0]
        return own if isinstance(own, Tensor) and own.numel() == 1 else None

    # --- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop noting what the models are called with."""
        self._ours.remove()
        if self._theirs is not None:
            self._theirs.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _model(model: Any) -> nn.Module:
    """Return a model without what only runs it elsewhere."""
    with bare(model_of(model)) as root:
        return root


def _weights(given: Mapping[str, float] | None) -> dict[str, float]:
    weights = dict.fromkeys(TERMS, 1.0)
    for name, weight in (given or {}).items():
        if name not in TERMS:
            raise ConfigError(
                f"weights has {shown(name)}; the terms are {', '.join(TERMS)}."
                f"{did_you_mean(name, TERMS)}"
            )
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ConfigError(
                f"The weight of {name!r} is {shown(weight)}; it must be 0 or a positive number."
            )
        weights[name] = float(weight)
    return weights
