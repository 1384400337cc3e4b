"""The promises of a pruner, one function each; what breaks one is said in a sentence."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from prune_core.masking import PrunerModuleWrapper, output_axis
from prune_core.testing.subject import (
    Subject,
    check_count,
    expect,
    mistakes_in_a_config,
    refused,
)
from prune_core.testing.toys import make_batch, make_toy

__all__ = ["TorchSubject"]

Masks = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class TorchSubject(Subject):
    """A pruner of torch models."""

    architecture: Callable[[], nn.Module]

    def make_model(self) -> nn.Module:
        """Return a model, always with the same weights."""
        torch.manual_seed(0)  # for what the pruner may draw
        return make_toy(self.architecture)

    def output(self, model: nn.Module) -> Tensor:
        """Return what a model computes, normalisations in their evaluation mode."""
        was_training = model.training
        model.eval()
        with torch.no_grad():
            output: Tensor = model(make_batch(self.make_model())[0])
        model.train(was_training)
        return output


def sparsity_is_exact(subject: Subject) -> None:
    """Of n channels or weights, n - floor(sparsity * n) are kept."""
    for sparsity in subject.sparsities:
        _, pruner, masks = subject.compress(sparsity=sparsity)
        expect(bool(masks), "compress() returned no masks.")
        for name, wrapper in pruner.get_modules_wrapper().items():
            mask = masks[name][wrapper.target].detach().bool()
            counts = [(unit, int(m.sum()), m.numel()) for unit, m in _units(wrapper, mask)]
            check_count(subject, name, sparsity, counts)


def _units(wrapper: PrunerModuleWrapper, mask: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what the mask may be counted in: channels, if it has no halves of any, and weights."""
    axis = output_axis(wrapper.module)
    slices = mask.transpose(0, axis).flatten(1) if mask.ndim > 1 else mask[:, None]
    if bool((slices.all(1) | ~slices.any(1)).all()):
        yield "channels", slices.all(1)
    yield "weights", mask.flatten()


def masks_are_binary_and_fit(subject: Subject) -> None:
    """Masks are zeros and ones, shaped like what they mask, returned and in force alike."""
    _, pruner, masks = subject.compress()
    wrappers = pruner.get_modules_wrapper()
    expect(
        set(masks) == set(wrappers),
        f"compress() returned masks for {sorted(masks)}, but {sorted(wrappers)} are wrapped.",
    )
    for name, wrapper in wrappers.items():
        expect(wrapper.target in masks[name], f"{name!r} has no mask for its {wrapper.target!r}.")
        for tensor, mask in masks[name].items():
            parameter = wrapper.module.get_parameter(tensor)
            where = f"the mask of {name}.{tensor}"
            expect(
                mask.shape == parameter.shape,
                f"{where} has the shape {tuple(mask.shape)}; the tensor has "
                f"{tuple(parameter.shape)}.",
            )
            strange = mask[(mask != 0) & (mask != 1)].flatten().tolist()
            expect(not strange, f"{where} holds {strange[:1]}; a mask holds 0 (pruned) and 1.")
            expect(
                torch.equal(wrapper.masks[tensor].bool(), mask.bool()),
                f"{where} that compress() returned is not the one in force.",
            )


def unwrapped_model_computes_the_same(subject: Subject) -> None:
    """Unwrapping leaves the masked values in the parameters, and the wrappers out."""
    model, pruner, masks = subject.compress()
    masked = subject.output(model)
    pruner.unwrap()
    left = [name for name, m in model.named_modules() if isinstance(m, PrunerModuleWrapper)]
    expect(not left, f"after unwrapping, {', '.join(left)} is still wrapped.")
    _assert_close("the unwrapped model", subject.output(model), "under masks", masked)
    for name, tensors in masks.items():
        for tensor, mask in tensors.items():
            removed = model.get_parameter(f"{name}.{tensor}")[~mask.bool()]
            expect(
                not removed.any(), f"after unwrapping, {name}.{tensor} is not zero where masked."
            )


def wrapping_and_unwrapping_twice_is_harmless(subject: Subject) -> None:
    """Whoever unwraps or wraps again what is so already changes nothing."""
    model, pruner = subject.prepare()
    wrapped = _names(model)
    pruner.compress()
    masked = subject.output(model)
    pruner.unwrap()
    pruner.unwrap()
    bare = _names(subject.make_model())
    expect(_names(model) == bare, "unwrapping twice leaves other modules than before wrapping.")
    pruner.wrap()
    pruner.wrap()
    expect(_names(model) == wrapped, "wrapping twice leaves other modules than wrapping once.")
    _assert_close("the model wrapped again", subject.output(model), "before", masked)


def _names(model: nn.Module) -> list[tuple[str, str]]:
    return [(name, type(module).__name__) for name, module in model.named_modules()]


def parameters_stay_the_same_objects(subject: Subject) -> None:
    """An optimizer made before pruning goes on training the model."""
    model = subject.make_model()
    before = dict(model.named_parameters())  # kept alive: a freed object's id is soon another's
    pruner = subject.pruner(model, [subject.entry(subject.middle)], **subject.arguments)

    def compare(when: str) -> None:
        now = {id(parameter) for parameter in model.parameters()}
        lost = [name for name, parameter in before.items() if id(parameter) not in now]
        expect(not lost, f"after {when}, {', '.join(lost)} is another object than before.")

    compare("wrapping")
    pruner.compress()
    compare("compress()")
    pruner.unwrap()
    compare("unwrapping")


def masked_values_stay_zero_in_training(subject: Subject) -> None:
    """A training step reaches what is kept, and nothing that is masked comes back."""
    model, pruner, masks = subject.compress()
    images, labels = make_batch(subject.make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))
        optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    expect(any(changed), "two training steps change no parameter of the masked model.")
    pruner.unwrap()
    for name, tensors in masks.items():
        for tensor, mask in tensors.items():
            removed = model.get_parameter(f"{name}.{tensor}")[~mask.bool()]
            expect(not removed.any(), f"training brings masked values of {name}.{tensor} back.")


def state_dict_survives_a_round_trip(subject: Subject) -> None:
    """Weights and masks of a wrapped model can be saved, and loaded into another one."""
    model, _, masks = subject.compress()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other, other_pruner = subject.prepare()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for name, wrapper in other_pruner.get_modules_wrapper().items():
        for tensor, mask in masks[name].items():
            expect(
                torch.equal(wrapper.masks[tensor].bool(), mask.bool()),
                f"the state dict of the model does not bring back the mask of {name}.{tensor}.",
            )
    _assert_close("the loaded model", subject.output(other), "the saved one", subject.output(model))


def a_copy_is_a_model_of_its_own(subject: Subject) -> None:
    """A deep copy computes the same, and what happens to it does not happen to the original."""
    model, _, _ = subject.compress()
    masked = subject.output(model)
    duplicate = copy.deepcopy(model)
    _assert_close("the copy", subject.output(duplicate), "the original", masked)
    with torch.no_grad():
        for tensor in (*duplicate.parameters(), *duplicate.buffers()):
            tensor.zero_()
    _assert_close("the original", subject.output(model), "before its copy was changed", masked)


def same_seed_gives_same_masks(subject: Subject) -> None:
    """The same seed, weights and data give the same masks."""
    _, _, first = subject.compress()
    _, _, second = subject.compress()
    expect(_same(first, second), "two runs with the same seed make different masks.")


def _same(first: Masks, second: Masks) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(mask, second[name][tensor])
        for name, tensors in first.items()
        for tensor, mask in tensors.items()
    )


def excluded_modules_stay_dense(subject: Subject) -> None:
    """A module that the config excludes is neither wrapped nor masked."""
    _, everything = subject.prepare()
    wrapped = list(everything.get_modules_wrapper())
    if len(wrapped) < 2:  # then nothing would be left to prune
        return
    name = wrapped[0]
    model, pruner = subject.prepare({"exclude": True, "op_names": [name]})
    _, masks = pruner.compress()
    expect(name not in masks, f"{name!r} is excluded, and has a mask.")
    expect(
        not isinstance(model.get_submodule(name), PrunerModuleWrapper),
        f"{name!r} is excluded, and is wrapped.",
    )
    expect(
        set(masks) == set(wrapped[1:]),
        f"excluding {name!r} leaves {sorted(masks)} masked instead of {sorted(wrapped[1:])}.",
    )


def bad_config_is_refused_and_the_model_untouched(subject: Subject) -> None:
    """A mistake in the config is a ConfigError, and the model is as it was."""
    mistakes = mistakes_in_a_config(subject.entry(subject.middle), "module")
    for mistake, config_list in mistakes.items():
        model = subject.make_model()
        names, state = _names(model), copy.deepcopy(model.state_dict())
        refused(mistake, partial(subject.pruner, model, config_list, **subject.arguments))
        expect(_names(model) == names, f"after {mistake} was refused, the model has other modules.")
        now = model.state_dict()
        expect(now.keys() == state.keys(), f"after {mistake} was refused, the state dict differs.")
        changed = [name for name, value in state.items() if not torch.equal(value, now[name])]
        expect(not changed, f"after {mistake} was refused, {', '.join(changed)} has other values.")


def _assert_close(what: str, found: Tensor, than: str, expected: Tensor) -> None:
    difference = float((found - expected).abs().max())
    # The same numbers through the same kernels; a little is left for another order of sums.
    expect(
        difference <= 1e-5 * max(1.0, float(expected.abs().max())),
        f"the output of {what} differs from the one {than} by up to {difference:.3g}.",
    )
