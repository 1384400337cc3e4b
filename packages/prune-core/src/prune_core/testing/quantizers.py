"""`check_quantizer`: what every quantizer of torch models promises, checked on a toy."""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.errors import ConfigError
from prune_core.masking import PrunerModuleWrapper, output_axis, replace_modules, weight_name
from prune_core.testing.report import run_checks
from prune_core.testing.subject import expect
from prune_core.testing.toys import ConvNet, make_batch, make_toy

__all__ = ["CHECKS", "check_quantizer"]


@dataclass(frozen=True)
class _Subject:
    """The quantizer under test, and how to make fresh ones of it."""

    quantizer: Callable[..., Any]
    make_model: Callable[[], nn.Module]
    config: Mapping[str, Any]
    bits: int
    arguments: Mapping[str, Any]

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of the config that selects what is quantised."""
        return {"quant_types": ["weight"], "quant_bits": self.bits, **self.config}

    def prepare(self, *more: Mapping[str, Any], model: nn.Module | None = None) -> tuple[Any, Any]:
        """Return a model and a quantizer on it, with more entries in its config."""
        torch.manual_seed(0)
        model = self.make_model() if model is None else model
        return model, self.quantizer(model, [self.entry, *more], **self.arguments)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return inputs and labels."""
        return make_batch(self.make_model())

    def output(self, model: nn.Module) -> Tensor:
        """Return what a model computes in its evaluation mode."""
        mode = model.training
        with torch.no_grad():
            output: Tensor = model.eval()(self.batch()[0])
        model.train(mode)
        return output

    def look(self, model: nn.Module) -> None:
        """Let ranges of inputs and outputs be seen, and change no parameter."""
        with torch.no_grad():
            model.train()(self.batch()[0])

    def train(self, model: nn.Module) -> None:
        """Make two steps of training."""
        images, labels = self.batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model.train()(images), labels))
            optimizer.step()

    def exported(self, quantizer: Any) -> dict[str, Tensor]:
        """Return the state dict that `export_model` writes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pth"
            quantizer.export_model(path)
            state: dict[str, Tensor] = torch.load(path, weights_only=True)
        return state

    def weights(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the modules whose weights are quantised, by the names of these."""
        _, quantizer = self.prepare(model=copy.deepcopy(model))
        names = list(quantizer.get_modules_wrapper())
        modules = {name: model.get_submodule(name) for name in names}
        return {f"{name}.{weight_name(module)}": module for name, module in modules.items()}


def compress_returns_the_model(subject: _Subject) -> None:
    """`compress()` returns the model, which then computes something else than before."""
    model, quantizer = subject.prepare()
    before = subject.output(model)
    found = quantizer.compress()
    expect(found is model, f"compress() returned a {type(found).__name__}, not the model.")
    expect(
        not torch.equal(subject.output(model), before),
        f"with weights of {subject.bits} bits the model computes exactly what it did before.",
    )


def weights_have_few_values(subject: _Subject) -> None:
    """An output channel has no more different weights than its bits can tell, and zero."""
    model, quantizer = subject.prepare()
    weights = subject.weights(subject.make_model())
    quantizer.compress()
    subject.look(model)
    state = subject.exported(quantizer)
    for name, module in weights.items():
        rows = state[name].transpose(0, output_axis(module)).flatten(1)
        most = max(len(row.unique()) for row in rows)
        expect(
            most <= 2**subject.bits + 1,
            f"with {subject.bits} bits, a channel of {name!r} has {most} different weights.",
        )


def zeros_stay_zeros(subject: _Subject) -> None:
    """What was pruned, and is zero, is zero after quantising."""
    model = subject.make_model()
    weights = subject.weights(model)
    with torch.no_grad():
        for name in weights:
            weight = model.get_parameter(name)
            weight[weight.abs() < weight.abs().median()] = 0
            weight[0] = 0  # a whole slice as well
    zeros = {name: model.get_parameter(name) == 0 for name in weights}
    _, quantizer = subject.prepare(model=model)
    quantizer.compress()
    subject.look(model)
    state = subject.exported(quantizer)
    for name, zero in zeros.items():
        expect(bool(state[name].isfinite().all()), f"{name!r} is not finite after quantising.")
        expect(not state[name][zero].any(), f"zeros of {name!r} are something else afterwards.")


def masks_stay_in_force(subject: _Subject) -> None:
    """A masked model is quantised as masked, and training brings nothing back."""
    model = subject.make_model()
    weights = subject.weights(model)
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(model.get_parameter(name).shape, generator=generator) < 0.5
        for name in weights
    }
    wrappers = {}
    for name, module in weights.items():
        wrapper = PrunerModuleWrapper(module, name.rpartition(".")[0], {})
        wrapper.set_masks({name.rpartition(".")[2]: masks[name]})
        wrappers[module] = wrapper
    replace_modules(model, dict(wrappers))
    _, quantizer = subject.prepare(model=model)
    quantizer.compress()
    subject.train(model)
    state = subject.exported(quantizer)
    for name, mask in masks.items():
        expect(name in state, f"export_model() writes no {name!r} of a masked model.")
        expect(not state[name][~mask].any(), f"masked weights of {name!r} are not zero.")
        expect(bool(state[name][mask].any()), f"nothing is left of {name!r}.")


def parameters_stay_the_same_objects(subject: _Subject) -> None:
    """An optimizer made before goes on training the model, and training changes it."""
    model = subject.make_model()
    before = dict(model.named_parameters())
    values = {name: p.detach().clone() for name, p in before.items()}
    _, quantizer = subject.prepare(model=model)
    quantizer.compress()
    now = {id(parameter) for parameter in model.parameters()}
    lost = [name for name, parameter in before.items() if id(parameter) not in now]
    expect(not lost, f"after compress(), {', '.join(lost)} is another object than before.")
    subject.train(model)
    names = subject.weights(subject.make_model())
    stuck = [name for name in names if torch.equal(before[name], values[name])]
    expect(not stuck, f"two training steps do not change {', '.join(stuck)}.")


def unwrapping_gives_the_model_back(subject: _Subject) -> None:
    """Taken out, a quantizer leaves the modules and the weights as they were."""
    bare = subject.make_model()
    model, quantizer = subject.prepare()
    quantizer.compress()
    quantizer.unwrap()
    quantizer.unwrap()
    kinds = [(name, type(module)) for name, module in model.named_modules()]
    expect(
        kinds == [(name, type(module)) for name, module in bare.named_modules()],
        "unwrap() leaves other modules than there were before.",
    )
    found, was = subject.output(model), subject.output(bare)
    expect(torch.equal(found, was), "unwrap() leaves a model that computes something else.")


def state_dict_survives_a_round_trip(subject: _Subject) -> None:
    """What a quantised model computes can be saved, and loaded into another one."""
    model, quantizer = subject.prepare()
    quantizer.compress()
    subject.train(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other, other_quantizer = subject.prepare()
    other_quantizer.compress()
    other.load_state_dict(torch.load(file, weights_only=True))
    _same(subject.output(other), subject.output(model), "the loaded model")


def a_copy_is_a_model_of_its_own(subject: _Subject) -> None:
    """A deep copy computes the same, and what happens to it does not happen to the original."""
    model, quantizer = subject.prepare()
    quantizer.compress()
    before = subject.output(model)
    duplicate = copy.deepcopy(model)
    _same(subject.output(duplicate), before, "the copy")
    with torch.no_grad():
        for tensor in (*duplicate.parameters(), *duplicate.buffers()):
            tensor.zero_()
    _same(subject.output(model), before, "the original, after its copy was changed,")


def excluded_modules_stay_as_they_are(subject: _Subject) -> None:
    """A module that the config excludes is not quantised."""
    _, everything = subject.prepare()
    names = list(everything.get_modules_wrapper())
    _, quantizer = subject.prepare({"exclude": True, "op_names": [names[0]]})
    found = list(quantizer.get_modules_wrapper())
    expect(found == names[1:], f"without {names[0]!r}, {found} are quantised.")


def bad_config_is_refused_and_the_model_untouched(subject: _Subject) -> None:
    """What cannot be meant is a ConfigError, and the model stays as it was."""
    bad: dict[str, Any] = {
        "a key of a pruner": [{**subject.entry, "sparsity": 0.5}],
        "no quant_types": [{"quant_bits": subject.bits, "op_types": ["default"]}],
        "an unknown quant_type": [{**subject.entry, "quant_types": ["weights"]}],
        "no bits at all": [{**subject.entry, "quant_bits": 0}],
        "bits of what is not quantised": [{**subject.entry, "quant_bits": {"output": 8}}],
        "a layer that is not there": [{**subject.entry, "op_names": ["no.such.layer"]}],
        "an empty list": [],
    }
    for what, rules in bad.items():
        model = subject.make_model()
        before = [(name, type(module)) for name, module in model.named_modules()]
        try:
            subject.quantizer(model, rules, **subject.arguments)
        except ConfigError:
            pass
        except Exception as error:
            raise AssertionError(f"{what} raises a {type(error).__name__}: {error}") from error
        else:
            raise AssertionError(f"{what} is accepted.")
        after = [(name, type(module)) for name, module in model.named_modules()]
        expect(after == before, f"{what} is refused, and the model is changed.")


def _same(found: Tensor, expected: Tensor, what: str) -> None:
    difference = float((found - expected).abs().max())
    expect(
        difference <= 1e-5 * max(1.0, float(expected.abs().max())),
        f"{what} computes something else; outputs differ by up to {difference:.3g}.",
    )


CHECKS: Mapping[str, Callable[[_Subject], None]] = {
    "compress": compress_returns_the_model,
    "levels": weights_have_few_values,
    "zeros": zeros_stay_zeros,
    "masks": masks_stay_in_force,
    "parameters": parameters_stay_the_same_objects,
    "unwrap": unwrapping_gives_the_model_back,
    "state_dict": state_dict_survives_a_round_trip,
    "deepcopy": a_copy_is_a_model_of_its_own,
    "exclude": excluded_modules_stay_as_they_are,
    "bad_config": bad_config_is_refused_and_the_model_untouched,
}


def check_quantizer(
    quantizer: Callable[..., Any],
    *,
    model: Callable[[], nn.Module] = ConvNet,
    bits: int = 4,
    config: Mapping[str, Any] | None = None,
    skip: Collection[str] = (),
    **arguments: Any,
) -> None:
    """Check that a quantizer keeps what every quantizer promises.

    Every check gets a model of its own, with the same weights. All failures are reported at once.

    Args:
        quantizer: The class, called with `(model, config_list, **arguments)`.
        model: Makes the model: a toy of this package, or a class with an `input_shape` whose
            output is scores of ten classes.
        bits: The bits of the weights.
        config: Further keys of the entry of the `config_list`, such as `op_types`.
        skip: Names of checks that do not apply: `compress`, `levels`, `zeros`, `masks`,
            `parameters`, `unwrap`, `state_dict`, `deepcopy`, `exclude`, `bad_config`.
        **arguments: Further arguments of the quantizer, such as `calibrate`.

    Raises:
        AssertionError: When a promise is broken; the message lists every one.

    Example:
        ```python
        def test_it_keeps_what_every_quantizer_promises():
            check_quantizer(TernaryQuantizer, bits=2)
        ```
    """
    subject = _Subject(
        quantizer=quantizer,
        make_model=lambda: make_toy(model),
        config={"op_types": ["default"], **(config or {})},
        bits=bits,
        arguments=arguments,
    )
    run_checks(getattr(quantizer, "__name__", repr(quantizer)), CHECKS, subject, skip)
