"""Running a model step by step over a calibration set, each step on what those before it give now.

A first pass over the model keeps what its steps are called with. From then on any step can be run
as often as it takes, and what it returns once it has been pruned is what the next step is run on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prune_core.errors import PruneError, warn
from prune_toolkit.calibration.calibrate import Calibrate, Enough
from prune_toolkit.calibration.kept import Batch, Kept
from prune_toolkit.calibration.sketch import alike, sketch, sketches
from prune_toolkit.calibration.steps import Step, leaves, rebuilt
from prune_toolkit.calibration.store import Keep
from prune_toolkit.calibration.watch import TokenMask, padding_of
from prune_toolkit.running.restore import evaluating, only_run

__all__ = ["Replay"]

# Of so many batches it is seen whether running steps gives what running the model gave.
_COMPARED = 2


class Replay:
    """The calibration set, as the steps of a model see it.

    Args:
        model: The model, wrapped or not; it is in eval mode while its steps run.
        steps: How its forward is cut.
        keep: What keeps activations.
        tokens: Says which tokens of a call are no padding.
        dense: Whether every step is run on what the model gave before any was changed. Otherwise
            a step that does not follow is run on what the changed model gives.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Sequence[Step],
        keep: Keep = Tensor.clone,
        tokens: TokenMask = padding_of,
        *,
        dense: bool = False,
    ) -> None:
        self.model, self._keep, self._tokens = model, keep, tokens
        self._dense = dense
        self._cut(steps)
        self._batches: list[Batch] = []
        self._sketches: dict[tuple[int, int], list[Tensor]] = {}
        self._autocast: tuple[str, torch.dtype] | None = None

    def _cut(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        # Of each step, which of its arguments are results of steps before it.
        self._linked: list[tuple[int | None, ...]] = []
        made: set[int | None] = set()
        for step in steps:
            known = made if step.follows else set()
            self._linked.append(tuple(n if n in known else None for n in step.inputs))
            made.update(step.outputs)
            made.discard(None)

    def __len__(self) -> int:
        return len(self._batches)

    # --- the first pass -------------------------------------------------------------------

    def capture(self, calibrate: Calibrate, batches: int | None = None) -> None:
        """Run the model on its calibration set, and keep what is needed to run its steps.

        Args:
            calibrate: Takes the model and runs it on some batches.
            batches: After how many to stop, or None.

        Raises:
            PruneError: `calibrate` does not run the model, or changes it.
        """
        with only_run(self.model), self._capturing(batches):
            try:
                with torch.no_grad():
                    calibrate(self.model)
            except Enough:
                pass
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
                # It calls backward(), as some criteria want it: that needs a graph, and memory.
                self._batches.clear()
                with suppress(Enough):
                    calibrate(self.model)
        if not self._batches:
            raise PruneError("calibrate(model) never ran the model, so there is nothing to score.")
        if (strange := self._differs()) is not None:
            warn(
                f"The model cannot be calibrated part by part: {strange!r} is not run on what "
                "the modules before it returned. It is calibrated as a whole, which takes the "
                "memory of all its layers at once."
            )
            layers = tuple(dict.fromkeys(name for step in self.steps for name in step.layers))
            self._cut([Step("", layers, (), (), follows=False, groups=(layers,))])

    @contextmanager
    def _capturing(self, batches: int | None) -> Iterator[None]:
        calls: Counter[str] = Counter()
        kept: dict[int, tuple[Any, Kept]] = {}
        places: dict[str, list[int]] = {}
        for place, step in enumerate(self.steps):
            if step.follows or not place or self._dense:
                places.setdefault(step.name, []).append(place)

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if batches is not None and len(self._batches) >= batches:
                raise Enough
            calls.clear()
            kept.clear()
            batch = Batch()
            tokens = self._tokens(args, kwargs)
            batch.tokens = None if tokens is None else self._kept(tokens)
            batch.call = self._call((args, kwargs), kept)
            self._batches.append(batch)
            device = next((p.device.type for p in self.model.parameters()), "cpu")
            on = torch.is_autocast_enabled(device)
            self._autocast = (device, torch.get_autocast_dtype(device)) if on else None

        def noting(name: str) -> Callable[..., None]:
            def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                for place in places[name]:
                    if self.steps[place].occurrence == calls[name]:
                        self._note(place, (args, kwargs), kept)
                calls[name] += 1

            return note

        def sketching(name: str) -> Callable[..., None]:
            def sketch(module: nn.Module, args: Any, output: Any) -> None:
                number = len(self._batches) - 1
                for place in places[name]:
                    if number < _COMPARED and self.steps[place].occurrence == calls[name] - 1:
                        self._sketches[number, place] = sketches(output)

            return sketch

        handles = [self.model.register_forward_pre_hook(begin, with_kwargs=True)]
        try:
            for name in places:
                module = self.model.get_submodule(name)
                handles.append(module.register_forward_pre_hook(noting(name), with_kwargs=True))
                handles.append(module.register_forward_hook(sketching(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, place: int, tree: Any, kept: dict[int, tuple[Any, Kept]]) -> None:
        """Keep what a step is called with, but for what the steps before it will return."""
        batch, linked = self._batches[-1], self._linked[place]
        batch.forms[place] = rebuilt(tree, repeat(None))
        for at, leaf in enumerate(leaves(tree)):
            if at >= len(linked) or linked[at] is None:
                batch.constants[place, at] = self._once(leaf, kept)

    def _call(self, tree: Any, kept: dict[int, tuple[Any, Kept]]) -> tuple[Any, list[Kept]]:
        return rebuilt(tree, repeat(None)), [self._once(leaf, kept) for leaf in leaves(tree)]

    def _once(self, leaf: Any, kept: dict[int, tuple[Any, Kept]]) -> Kept:
        """Keep something once, however many steps are called with it."""
        if id(leaf) not in kept:
            kept[id(leaf)] = leaf, self._kept(leaf)
        return kept[id(leaf)][1]

    def _kept(self, leaf: Any) -> Kept:
        return Kept.of(leaf, self._keep)

    def _differs(self) -> str | None:
        """Run the steps on the first batches; return one that is not given what it was given.

        With two batches, each step is run on both before the next is: what a module keeps for
        another one is that of the wrong batch then.
        """
        batches = self._batches[:_COMPARED]
        reached = [place for place, step in enumerate(self.steps) if not place or step.follows]
        try:
            for place in reached:
                for number, batch in enumerate(batches):
                    given = [n for n in self._linked[place] if n is not None]
                    if any(n not in batch.values for n in given):
                        continue  # they come from a step that has to be reached
                    output = self._run_one(batch, place)
                    if not alike(output, self._sketches.get((number, place), [])):
                        return self.steps[place].name
                    self._keep_outputs(batch, place, output)
            return None
        finally:
            for batch in batches:
                batch.values.clear()

    # --- running steps --------------------------------------------------------------------

    def run(
        self,
        place: int,
        begin: Callable[[Tensor | None], None] = lambda tokens: None,
        until: nn.Module | None = None,
        keep: bool = False,
    ) -> None:
        """Run a step on every batch.

        Args:
            place: Which.
            begin: Called before each batch, with its tokens that are no padding.
            until: Leave the step when this module is about to run.
            keep: Whether what it returns now is what later steps are run on.
        """
        self.reach(place)
        with self._stopping_at(until):
            for batch in self._batches:
                begin(None if batch.tokens is None else batch.tokens.fresh())
                with suppress(Enough):
                    output = self._run_one(batch, place)
                    if keep:
                        self._keep_outputs(batch, place, output)

    def finish(self, place: int, keep: bool = True) -> None:
        """Leave a step for good, after running it once more for what later steps need of it.

        Args:
            place: Which.
            keep: Whether to run it once more; it need not be if `run` has kept its results.
        """
        later = self._wanted_after(place)
        if keep and not later.isdisjoint(self.steps[place].outputs):
            self.run(place, keep=True)
        for batch in self._batches:
            batch.forms.pop(place, None)
            batch.constants = {key: k for key, k in batch.constants.items() if key[0] != place}
            batch.values = {number: k for number, k in batch.values.items() if number in later}

    def fingerprint(self) -> str:
        """Return what tells this calibration set from others."""
        digest = sha256()
        for batch in self._batches:
            assert batch.call is not None
            for leaf in batch.call[1]:
                if isinstance(leaf.value, Tensor):
                    digest.update(sketch(leaf.value).numpy().tobytes())
        return digest.hexdigest()

    def _run_one(self, batch: Batch, place: int) -> Any:
        linked, form = self._linked[place], batch.forms[place]
        count = sum(1 for _ in leaves(form))
        given = (
            batch.constants[place, at].fresh()
            if at >= len(linked) or (number := linked[at]) is None
            else batch.values[number].fresh()
            for at in range(count)
        )
        args, kwargs = rebuilt(form, given)
        with self._as_it_was_called():
            return self.model.get_submodule(self.steps[place].name)(*args, **kwargs)

    def _keep_outputs(self, batch: Batch, place: int, output: Any) -> None:
        later = self._wanted_after(place)
        for number, leaf in zip(self.steps[place].outputs, leaves(output), strict=True):
            if number is not None and number in later:
                batch.values[number] = self._kept(leaf)

    def _wanted_after(self, place: int) -> set[int]:
        return {n for linked in self._linked[place + 1 :] for n in linked if n is not None}

    def reach(self, place: int) -> None:
        """Make sure that a step can be run, before anybody watches its layers.

        A step that does not follow is reached by running the model up to it.
        """
        step = self.steps[place]
        if place in self._batches[0].forms:
            return
        for batch in self._batches:
            assert batch.call is not None
            form, kept = batch.call
            args, kwargs = rebuilt(form, (leaf.fresh() for leaf in kept))
            if not step.name:
                batch.forms[place] = form
                batch.constants |= {(place, at): leaf for at, leaf in enumerate(kept)}
                continue
            with self._as_it_was_called(), self._seizing(place, batch), suppress(Enough):
                self.model(*args, **kwargs)

    @contextmanager
    def _seizing(self, place: int, batch: Batch) -> Iterator[None]:
        calls = 0

        def seize(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal calls
            calls += 1
            if calls > self.steps[place].occurrence:
                batch.forms[place], kept = self._call((args, kwargs), {})
                batch.constants |= {(place, at): leaf for at, leaf in enumerate(kept)}
                raise Enough

        module = self.model.get_submodule(self.steps[place].name)
        handle = module.register_forward_pre_hook(seize, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _as_it_was_called(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            stack.enter_context(torch.no_grad())
            if self._autocast is not None:
                device, dtype = self._autocast
                stack.enter_context(torch.autocast(device, dtype))
            yield

    @contextmanager
    def _stopping_at(self, module: nn.Module | None) -> Iterator[None]:
        def stop(module: nn.Module, args: Any) -> None:
            raise Enough

        handle: RemovableHandle | None = None
        if module is not None:
            handle = module.register_forward_pre_hook(stop)
        try:
            yield
        finally:
            if handle is not None:
                handle.remove()
