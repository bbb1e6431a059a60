"""Evidence that is to be broken, and changes to it by place: ``put("exhaustion.samples[-1].count", 0)``."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vmlab.lab.evidence import RESERVED, Evidence
from vmlab.lab.places import Step, steps_of, written
from vmlab.suggest import nearest


class World:
    """A copy of a run's evidence, which a control may change: ``world["anatomy.child"]["pid"] = 1``.

    A place begins with an observation's name, or with ``parameters`` or ``run``. LookupError says where a place leads to nothing.
    """

    def __init__(self, observations: Mapping[str, Any], parameters: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        self.observations: dict[str, Any] = copy.deepcopy(dict(observations))
        self.parameters: dict[str, Any] = copy.deepcopy(dict(parameters))
        self.run: dict[str, Any] = copy.deepcopy(dict(run))

    @property
    def evidence(self) -> Evidence:
        """What a check is given of it."""
        return Evidence(self.observations, self.parameters, self.run)

    def __getitem__(self, place: str) -> Any:
        (site,) = self.sites(place)
        return site.value

    def __setitem__(self, place: str, value: Any) -> None:
        """Put a value at a place; the last step of it may be new."""
        for holder, key in self._ends(place):
            holder[key] = copy.deepcopy(value)

    def __delitem__(self, place: str) -> None:
        # (From the end, so that taking one member of a list away moves none that is to be taken away next.)
        for site in reversed(self.sites(place)):
            del site.holder[site.key]

    def __contains__(self, place: str) -> bool:
        try:
            return bool(self.sites(place))
        except LookupError:
            return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, World) and self._parts == other._parts

    __hash__ = None  # type: ignore[assignment]

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.observations, self.parameters, self.run

    def sites(self, place: str) -> list[Site]:
        """Where a place leads: one site, or with ``[*]`` as many as there are; LookupError when there is none."""
        return [Site(holder, _present(holder, key, place)) for holder, key in self._ends(place)]

    def _ends(self, place: str) -> list[tuple[Any, Any]]:
        """What holds the value at a place (several with ``[*]``), and by which key."""
        steps = steps_of(place)
        if not steps or not isinstance(steps[0], str):
            raise LookupError(f"{place!r} is no place: an observation's name, then members and indices, as in growth.samples[-1].count")
        root: Any = {"parameters": self.parameters, "run": self.run}.get(steps[0]) if steps[0] in RESERVED else self.observations
        found = list(_walk(root, steps[1:] if steps[0] in RESERVED else steps, place))
        if not found:
            raise LookupError(f"{place}: there is nothing")
        return found


@dataclass(frozen=True)
class Site:
    """A value by what holds it."""

    holder: Any
    key: Any

    @property
    def value(self) -> Any:
        """The value."""
        return self.holder[self.key]


def _walk(value: Any, steps: Sequence[Step], place: str) -> Iterator[tuple[Any, Any]]:
    """The holder and the key of each value that the steps lead to."""
    if not steps:
        raise LookupError(f"{place!r} names everything: name a member of it")
    first, rest = steps[0], steps[1:]
    if first is None:
        if not isinstance(value, list):
            raise LookupError(f"{place}: [*] is for the members of a list, and there is none")
        keys: list[Any] = list(range(len(value)))
    else:
        keys = [first]
    for key in keys:
        if not rest:
            if not isinstance(value, list if isinstance(key, int) else dict):
                raise LookupError(f"{place}: there is nothing that could hold {written([key])}")
            yield value, key
        else:
            yield from _walk(value[_present(value, key, place)], rest, place)


def _present(value: Any, key: Any, place: str) -> Any:
    """The key, if there is anything by it. LookupError says what there is instead."""
    if isinstance(key, int) and isinstance(value, list) and -len(value) <= key < len(value):
        return key
    if isinstance(key, str) and isinstance(value, dict):
        if key in value:
            return key
        raise LookupError(f"{place}: there is no {key!r}{nearest(key, value)}; there are: {', '.join(map(str, value)) or 'none'}"[:500])
    found = f"a list of {len(value)}" if isinstance(value, list) else f"{value!r}"[:60]
    raise LookupError(f"{place}: {written([key])} leads nowhere in {found}")


# --- changes ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One thing that is changed in a world, and what a reader calls it."""

    name: str
    apply: Callable[[World], None]

    def __call__(self, world: World) -> None:
        """Change the world."""
        self.apply(world)

    def __str__(self) -> str:
        return self.name


def put(place: str, value: Any) -> Change:
    """Put a value at a place where there is one; ``[*]`` is each member of a list."""

    def apply(world: World) -> None:
        world.sites(place)
        world[place] = value

    return Change(f"{place} = {_short(value)}", apply)


def add(place: str, value: Any) -> Change:
    """Put a value at a place where there is none yet: a member more. ``[3]`` of a list of three is one more at its end."""

    def apply(world: World) -> None:
        for holder, key in world._ends(place):
            if isinstance(holder, list) and key == len(holder):
                holder.append(copy.deepcopy(value))
            elif isinstance(holder, list) or key in holder:
                raise LookupError(f"{place}: there is something already, or it is not the end of the list")
            else:
                holder[key] = copy.deepcopy(value)

    return Change(f"{place} added: {_short(value)}", apply)


def drop(place: str) -> Change:
    """Take away what is at a place."""

    def apply(world: World) -> None:
        del world[place]

    return Change(f"without {place}", apply)


def take(place: str, source: str) -> Change:
    """Put at a place what is at another one."""

    def apply(world: World) -> None:
        world.sites(place)
        world[place] = world[source]

    return Change(f"{place} = {source}", apply)


def changed(place: str, function: Callable[[Any], Any], name: str = "") -> Change:
    """Make another value of the one at a place; ``[*]`` is each member of a list. ``name`` says what the function does."""

    def apply(world: World) -> None:
        for site in world.sites(place):
            site.holder[site.key] = function(site.value)

    return Change(f"{place} {name or getattr(function, '__name__', 'changed').replace('<lambda>', 'changed')}", apply)


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
