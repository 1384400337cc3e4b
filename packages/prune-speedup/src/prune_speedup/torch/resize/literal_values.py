"""Find out what the numbers at a place in the source have to be.

What the operators need is told in terms of the numbers that torch is given, and the source may
give it others: it leaves a default out, or names its arguments in another order. So the calls in
question go through a watcher here while the small model runs beside the recording, and for each of
them both are known. Then the model runs on other inputs too: a number that differs there, because
it is made of the batch or of the length, is known by its ratio.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prune_core.errors import SpeedupError
from prune_speedup.engine.plan import Plan
from prune_speedup.torch.record.call_sites import Number, Site, numbers, with_numbers
from prune_speedup.torch.record.recorder import Recorder
from prune_speedup.torch.record.source_places import key_of, place_of_call
from prune_speedup.torch.resize.corrections import Becomes, Correction, Path, become
from prune_speedup.torch.resize.functions import path_of
from prune_speedup.torch.resize.run_small import Mismatch, Need, Observer, attempt
from prune_speedup.torch.resize.smaller import correct, corrections_of, kept_attributes
from prune_speedup.torch.rules import has_rule

__all__ = ["learn"]

Key = tuple[str, Path]
"""A place, told by the module that runs and the way from it."""


@dataclass(slots=True)
class _Lesson:
    """What is known of one place.

    Attributes:
        need: A call there that was told wrong numbers.
        before: What an earlier correction makes of its numbers.
        tables: For each position the numbers that the source gives, and what each has to be.
        scaled: The positions where other inputs give other numbers, and which inputs these were.
    """

    need: Need
    before: dict[int, Becomes]
    tables: dict[int, dict[Number, Number]] = field(default_factory=lambda: defaultdict(dict))
    scaled: dict[int, str] = field(default_factory=dict)

    def correction(self, path: Path) -> Correction:
        """What is to be corrected there."""
        return Correction(
            path,
            tuple(
                (at, Becomes(tuple(sorted(table.items())), at in self.scaled))
                for at, table in sorted(self.tables.items())
                if any(old != new for old, new in table.items())
            ),
        )


@dataclass(slots=True)
class Learned:
    """What has been found out.

    Attributes:
        corrections: All that each module is to have, with those that it had.
        scaled: The inputs that showed that some numbers are to be scaled.
        mismatch: Why it could not be found out.
    """

    corrections: dict[str, tuple[Correction, ...]] = field(default_factory=dict)
    places: list[tuple[str, Site, Correction]] = field(default_factory=list)
    scaled: set[str] = field(default_factory=set)
    mismatch: Mismatch | None = None


def learn(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    needs: Iterable[Need],
    others: Mapping[str, Any],
) -> Learned:
    """Find the corrections with which calls are told what they need; the model stays without them.

    Args:
        model: The small model.
        example_inputs: What it runs on.
        plan: What it has to do.
        needs: The calls that are told wrong numbers.
        others: Other inputs, by what they are called; not all of them need be accepted.
    """
    learned = Learned()
    lessons: dict[Key, _Lesson] = {}
    for need in needs:
        module = model.get_submodule(need.site.module)
        try:
            path = path_of(module, need.place)
        except SpeedupError as error:
            learned.mismatch = _cannot(need, str(error))
            return learned
        before = {
            at: becomes
            for correction in corrections_of(module)
            if correction.path == path
            for at, becomes in correction.numbers
        }
        lessons.setdefault((need.site.module, path), _Lesson(need, before))
    classes = {name: type(model.get_submodule(name)) for name, _ in lessons}
    try:
        _learn(model, example_inputs, plan, lessons, learned)
        if learned.mismatch is None:
            _vary(model, lessons, others)
    finally:
        for name, kind in classes.items():
            model.get_submodule(name).__class__ = kind
    if learned.mismatch is None:
        for (name, path), lesson in lessons.items():
            made = lesson.correction(path)
            known = learned.corrections.get(name, corrections_of(model.get_submodule(name)))
            rest = tuple(each for each in known if each.path != path)
            learned.corrections[name] = (*rest, made)
            learned.places.append((name, lesson.need.site, made))
            learned.scaled.update(lesson.scaled.values())
    return learned


def _cannot(need: Need, why: str) -> Mismatch:
    message = f"{need.site.function} is told sizes that cannot be corrected in the source: {why}"
    return Mismatch(need.position, need.site.module, message)


def _learn(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    lessons: Mapping[Key, _Lesson],
    learned: Learned,
) -> None:
    """Watch the places while the model runs beside its recording."""
    watcher = _Watcher(model, lessons)
    try:
        _watch(model, lessons, watcher.told)
    except SpeedupError as error:
        learned.mismatch = _cannot(next(iter(lessons.values())).need, str(error))
        return
    trial = attempt(model, example_inputs, plan, watcher)
    learned.mismatch = trial.mismatch or watcher.mismatch
    for lesson in lessons.values():
        if learned.mismatch is None and not any(
            old != new for table in lesson.tables.values() for old, new in table.items()
        ):
            learned.mismatch = _cannot(lesson.need, "the numbers are made inside another function")


def _watch(model: nn.Module, lessons: Iterable[Key], told: Any) -> None:
    """Let calls at these places go through a watcher."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for name, path in lessons:
        paths[name].append(path)
    for name, own in paths.items():
        module = model.get_submodule(name)
        others = [each for each in corrections_of(module) if each.path not in own]
        every = (*others, *(Correction(path, ()) for path in own))

        def watch(path: Path, args: Any, kwargs: Any, name: str = name) -> Any:
            return told((name, path), args, kwargs)

        correct(module, every, tuple(kept_attributes(module).items()), watch)


class _Watcher(Observer):
    """Told of each call twice: as the source makes it, and as torch gets it."""

    def __init__(self, model: nn.Module, lessons: Mapping[Key, _Lesson]) -> None:
        self.mismatch: Mismatch | None = None
        self._model = model
        self._lessons = lessons
        self._paths: dict[Any, Path | None] = {}
        self._waiting: tuple[Key, list[Number], list[Number]] | None = None

    def told(self, key: Key, args: Any, kwargs: Any) -> Any:
        """Note the numbers of a call as the source makes it."""
        lesson = self._lessons.get(key)
        if lesson is None:
            return None
        given = numbers((args, list(kwargs.values())))
        args, kwargs = with_numbers(args, kwargs, _through(lesson.before, key))
        if given:
            self._waiting = key, given, numbers((args, list(kwargs.values())))
        return args, kwargs

    def saw(self, site: Site, given: tuple[Number, ...], changes: Mapping[int, Number]) -> None:
        """Note what torch gets, and what it should have got."""
        if self._waiting is None:
            return
        key, source, now = self._waiting
        if key != (site.module, self._path(site.module)):
            return
        self._waiting = None
        lesson, places = self._lessons[key], _aligned(given, now)
        if places is None and changes:
            self.mismatch = _cannot(lesson.need, "it is not clear which of its numbers is which")
        for at, there in enumerate(places or ()):
            if there is not None:
                old, new = _plain(source[there]), _plain(changes.get(at, given[at]))
                if lesson.tables[there].setdefault(old, new) != new:
                    self.mismatch = self.mismatch or _cannot(
                        lesson.need,
                        f"in `{key[1][-1].text}` the number {old} has to be {new} in one call and "
                        f"{lesson.tables[there][old]} in another",
                    )

    def _path(self, name: str) -> Path | None:
        place = place_of_call()
        key = name, key_of(place)
        if key not in self._paths:
            try:
                self._paths[key] = path_of(self._model.get_submodule(name), place)
            except SpeedupError:
                self._paths[key] = None
        return self._paths[key]


def _through(before: Mapping[int, Becomes], key: Key) -> Any:
    where = f"{key[1][-1].text} in {key[1][-1].function}"
    return lambda at, number: become(before[at], number, where) if at in before else number


def _aligned(given: tuple[Number, ...], source: list[Number]) -> list[int | None] | None:
    """For each number that torch got, which of the source's it is.

    Torch's own functions fill in defaults, and put what was told by name into their own order.
    """
    found: list[int | None] = []
    start = 0
    for number in given:
        at = next((i for i in range(start, len(source)) if source[i] == number), None)
        found.append(at)
        start = start if at is None else at + 1
    if sum(at is not None for at in found) == len(source):
        return found
    places = [[at for at, other in enumerate(source) if other == number] for number in given]
    if any(len(each) > 1 for each in places):
        return None
    return [each[0] if each else None for each in places]


def _plain(number: Number) -> Number:
    """An integer or a float that remembers nothing."""
    return int(number) if isinstance(number, int) else float(number)


def _vary(model: nn.Module, lessons: Mapping[Key, _Lesson], others: Mapping[str, Any]) -> None:
    """See which numbers differ with the inputs; a model need not accept them."""
    for name, inputs in others.items():
        varied = _Varied(lessons, name)
        _watch(model, lessons, varied.told)
        try:
            Recorder(model, has_rule).run(inputs)
        except Exception:
            continue
        for lesson, at in varied.found:
            lesson.scaled.setdefault(at, name)


class _Varied:
    """Corrects what is known, and guesses that the rest has the same ratio."""

    def __init__(self, lessons: Mapping[Key, _Lesson], name: str) -> None:
        self.found: list[tuple[_Lesson, int]] = []
        self._lessons = lessons
        self._name = name

    def told(self, key: Key, args: Any, kwargs: Any) -> Any:
        lesson = self._lessons.get(key)
        if lesson is None:
            return None

        def change(at: int, number: Number) -> Number:
            table = lesson.tables.get(at, {})
            if number in table or all(old == new for old, new in table.items()):
                return table.get(number, number)
            if len({new / old if old else None for old, new in table.items()}) != 1:
                raise SpeedupError("of several ratios it may be any")
            self.found.append((lesson, at))
            return become(Becomes(tuple(table.items()), scaled=True), number, "")

        return with_numbers(args, kwargs, change)
