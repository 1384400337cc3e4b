"""A training for a while, in one call."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from inspect import signature
from itertools import chain
from statistics import fmean
from time import monotonic
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from prune_core.callables import UserFunction
from prune_core.compressed import model_of
from prune_core.errors import ConfigError, OptionError, PruneError, did_you_mean, shown, warn
from prune_core.evaluators import looks_like_optimizer
from prune_core.masking import check_model
from prune_core.masking.sharded import local
from prune_core.progress import Task
from prune_core.seed import as_seed
from prune_recover.batches import call_of, device_of, moved
from prune_recover.distiller import Distiller
from prune_recover.report import Recovery
from prune_recover.rounds import Limits, as_batches, check_limits, opened
from prune_recover.zeros import Masks, Zeros, keep_zeros
from prune_toolkit.running.random_state import seeded
from prune_toolkit.running.restore import evaluating, in_its_mode

__all__ = ["recover"]

MOMENTUM = 0.1
"""With which batch norms average at least: one of 0.001 would hardly notice a short training."""
WARM_UP = 0.05
"""During which share of the training the learning rate grows."""

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
BatchLoss = Callable[[nn.Module, Any], Tensor]


def recover(
    model: nn.Module,
    data: Iterable[Any],
    *,
    teacher: nn.Module | None = None,
    loss: BatchLoss | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    seconds: float | None = None,
    optimizer: Optimizer | MakeOptimizer | None = None,
    learning_rate: float = 1e-3,
    clip: float | None = 1.0,
    validation: Iterable[Any] | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    keep: bool | Masks = True,
    seed: int = 0,
    **distillation: Any,
) -> Recovery:
    """Train a pruned model for a while, by what its teacher says and by labels.

    The learning rate grows for a moment and then falls to nothing. Running statistics of batch
    norms follow with a momentum of at least 0.1. If the loss on `validation` is higher afterwards,
    the model is put back as it was, with a warning.

    Numbers depend on the seed alone, unless `seconds` ends the training; the rest of the program
    draws the random numbers that it would have drawn.

    Args:
        model: The pruned model, small, masked or with zeros in its weights; trained in place.
        data: Batches: inputs, pairs of inputs and labels, or dicts of keyword arguments; a
            `DataLoader`, a list, or an iterator that never ends.
        teacher: The model as it was before it was pruned; see `Distiller`.
        loss: A function of the model and a batch that returns the loss of the labels, for batches
            of another form. The teacher is asked about the same inputs.
        steps: After how many steps to stop.
        epochs: After how many rounds through the data to stop; once unless anything is said.
        seconds: After how many seconds to stop.
        optimizer: An optimizer, whose learning rate is left alone; or a function that makes one of
            parameters, such as `functools.partial(torch.optim.SGD, lr=0.1)`. Adam unless given.
        learning_rate: The largest, of the default optimizer.
        clip: To what length gradients are cut, or None.
        validation: Batches that `data` does not have, to tell by how good the model is before and
            after. Without any, the first batches of `data` tell, and not whether the model has
            only learnt these by heart.
        evaluate: Takes the model and returns how good it is; called before and after.
        keep: Whether zeros in weights stay, or the masks that say where they are; see
            `keep_zeros`. Masks of a wrapped model are in force anyway.
        seed: Of the random numbers, such as those of dropout and of a shuffled loader.
        **distillation: Further arguments of `Distiller`: `temperature`, `hidden`, `weights` ….

    Raises:
        ConfigError: Something does not fit.
        PruneError: The loss or a weight became NaN or infinite. After this as after any other
            error, the model is as it was.

    Example:
        ```python
        report = recover(small, loader, teacher=dense, seconds=120, evaluate=accuracy)
        print(report)
        ```
    """
    model = model_of(model)
    check_model(model, compiled=False)
    check_limits(steps, epochs, seconds)
    if not callable(loss) and loss is not None:
        raise ConfigError(f"loss is {shown(loss)}; it must be a function of a model and a batch.")
    judge = None if evaluate is None else UserFunction(evaluate, "evaluate")
    with ExitStack() as stack:
        stack.enter_context(seeded(as_seed(seed)))
        distiller = stack.enter_context(_distiller(model, teacher, loss, distillation))
        first, rounds, size = opened(data)
        judges = first if validation is None else as_batches(validation, "validation")
        training = _Training(model, distiller, loss)
        stack.enter_context(in_its_mode(model))
        stack.enter_context(_batch_norms_that_follow(model))
        put_back = stack.enter_context(_as_it_was_on_error(model, optimizer))
        zeros = Zeros([])
        if keep is not False:
            zeros = stack.enter_context(keep_zeros(model, None if keep is True else keep))
        if distiller.hidden.pairs:
            distiller.prepare(first[0], loss)
        made = _optimizer([*model.parameters(), *distiller.parameters()], optimizer, learning_rate)
        before, terms_before = training.judged(judges)
        quality_before = _quality(model, judge, seed)
        began = monotonic()
        limits = Limits(steps, epochs, seconds, size)
        losses = training.run(rounds, made, limits, clip, own=made is optimizer)
        took = monotonic() - began
        _check_finite(model)
        after, terms_after = training.judged(judges)
        taken_back = validation is not None and after > before
        if taken_back:
            put_back()
            warn(
                f"The training was taken back: with it the loss on validation is {after:.4g}, and "
                f"was {before:.4g} before. Try a smaller learning_rate, such as a tenth; more "
                "steps, over which it falls more slowly; or more data."
            )
        quality_after = _quality(model, judge, seed)
    return Recovery(
        model, len(losses), took, before, after, terms_before, terms_after,
        quality_before, quality_after, zeros.count, losses, taken_back,
    )  # fmt: skip


class _Training:
    """Takes steps, with the loss of labels and of the teacher."""

    def __init__(self, model: nn.Module, distiller: Distiller, loss: BatchLoss | None) -> None:
        self.model, self.distiller, self.loss = model, distiller, loss
        self.device = device_of(model)

    def loss_of(self, batch: Any) -> Tensor:
        """Return the loss of one batch."""
        batch = moved(batch, self.device)
        if self.loss is None:
            args, kwargs, labels = call_of(self.model, batch)
            return self.distiller.loss(self.model(*args, **kwargs), labels)
        found = self.loss(self.model, batch)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise ConfigError(
                f"loss(model, batch) returned {shown(found)}; it must return one number, a tensor."
            )
        return self.distiller.loss(self.distiller.answer, found)

    def judged(self, batches: Sequence[Any]) -> tuple[float, dict[str, float]]:
        """Return the loss of some batches in eval mode, and its terms."""
        losses, terms = [], defaultdict(list)
        with torch.no_grad(), evaluating(self.model):
            for batch in batches:
                losses.append(float(self.loss_of(batch)))
                for name, term in self.distiller.terms.items():
                    terms[name].append(float(term))
        return fmean(losses), {name: fmean(values) for name, values in terms.items()}

    def run(
        self,
        rounds: Iterator[Iterator[tuple[float, Any]]],
        optimizer: Optimizer,
        limits: Limits,
        clip: float | None,
        *,
        own: bool,
    ) -> list[float]:
        """Train until a limit is reached, and return the loss of each step."""
        rates = [group["lr"] for group in optimizer.param_groups]
        trained = [each for group in optimizer.param_groups for each in group["params"]]
        losses: list[float] = []
        self.model.train()
        with Task("recover", limits.total, "step", announce=True) as task:
            for batch_at, batch in chain.from_iterable(rounds):
                gone = limits.gone(len(losses), batch_at)
                if gone >= 1:
                    break
                if not own:
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * min((gone + 0.01) / WARM_UP, 1 - gone, 1)
                losses.append(self._step(batch, optimizer, trained, clip, len(losses)))
                task.advance(f"loss {losses[-1]:.4g}")
            else:
                if limits.steps is not None and limits.gone(len(losses), 0) < 1:
                    warn(
                        f"data ended after {len(losses)} batches, before the {limits.steps} steps "
                        "that were asked for. Give a list or a DataLoader, which can be gone "
                        "through again."
                    )
        return losses

    def _step(
        self,
        batch: Any,
        optimizer: Optimizer,
        trained: Sequence[Tensor],
        clip: float | None,
        number: int,
    ) -> float:
        optimizer.zero_grad()
        loss = self.loss_of(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise PruneError(
                f"The loss is {value} in step {number + 1}, so the training was stopped and the "
                "model is as it was. Try a smaller learning_rate, look at the data, or train in "
                "float32: half precision overflows."
            )
        if not loss.requires_grad:
            raise ConfigError(
                "The loss depends on nothing that can be trained. Look whether parameters have "
                "requires_grad, and whether the model runs under torch.no_grad()."
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        return value


def _distiller(
    model: nn.Module, teacher: nn.Module | None, loss: BatchLoss | None, options: dict[str, Any]
) -> Distiller:
    known = [n for n in signature(Distiller).parameters if n not in ("student", "teacher")]
    for name in options:
        if name not in known:
            raise OptionError(
                f"recover() takes no {name!r}.{did_you_mean(name, [*known, *_OWN])} Beside its own "
                f"arguments it takes those of Distiller: {', '.join(known)}."
            )
    if teacher is not None:
        teacher = model_of(teacher)
        check_model(teacher)
    if loss is not None:
        if "label_loss" in options:
            raise ConfigError("loss and label_loss say the same; give one of them.")
        options = {**options, "label_loss": lambda outputs, found: found}
    return Distiller(model, teacher, **options)


_OWN = tuple(signature(recover).parameters)


def _optimizer(
    parameters: Sequence[nn.Parameter],
    given: Optimizer | MakeOptimizer | None,
    learning_rate: float,
) -> Optimizer:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ConfigError("No parameter of the model has requires_grad, so none can be trained.")
    if given is None:
        if not learning_rate > 0:
            raise ConfigError(f"learning_rate is {shown(learning_rate)}; it must be more than 0.")
        return torch.optim.Adam(trained, learning_rate)
    if not looks_like_optimizer(given):
        if not callable(given):
            raise ConfigError(
                f"optimizer is {shown(given)}; it must be an optimizer, or a function that makes "
                "one of parameters."
            )
        made = given(trained)
        if not looks_like_optimizer(made):
            raise ConfigError(f"optimizer(parameters) returned {shown(made)}, not an optimizer.")
        return made
    given = cast("Optimizer", given)
    held = {id(each) for group in given.param_groups for each in group["params"]}
    if held.isdisjoint(map(id, trained)):
        raise ConfigError(
            "The optimizer holds no parameter of the model. Shrinking gives a model other "
            "parameters: make the optimizer afterwards, or use prune_core.shrink_optimizer."
        )
    return given


def _quality(model: nn.Module, judge: UserFunction | None, seed: int) -> float | None:
    if judge is None:
        return None
    with seeded(seed), torch.no_grad(), evaluating(model):
        found = judge(model)
    try:
        return float(found)
    except (TypeError, ValueError):
        raise ConfigError(f"evaluate returned {shown(found)}; it must return a number.") from None


@contextmanager
def _batch_norms_that_follow(model: nn.Module) -> Iterator[None]:
    momenta = [
        (norm, norm.momentum)
        for norm in model.modules()
        if isinstance(norm, _BatchNorm) and norm.momentum is not None
    ]
    for norm, momentum in momenta:
        norm.momentum = max(momentum, MOMENTUM)
    try:
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum


def _check_finite(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not bool(local(parameter.detach()).isfinite().all()):
            raise PruneError(
                f"{name} holds NaN or infinity after the training, so the model was put back as it "
                "was. Try a smaller learning_rate."
            )


@contextmanager
def _as_it_was_on_error(model: nn.Module, optimizer: Any) -> Iterator[Callable[[], None]]:
    """Put back parameters, buffers and an optimizer if anything goes wrong, or when asked to."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    state = deepcopy(optimizer.state_dict()) if looks_like_optimizer(optimizer) else None

    def put_back() -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        if state is not None:
            optimizer.load_state_dict(state)

    try:
        yield put_back
    except BaseException:
        put_back()
        raise
    finally:
        for parameter in model.parameters():
            parameter.grad = None
