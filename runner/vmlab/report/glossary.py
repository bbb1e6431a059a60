"""The glossary of a page: the terms that its texts use, and where in those texts they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vmlab.lab.glossary import Term, shipped


@dataclass(frozen=True)
class Piece:
    """A stretch of text, or, with an anchor, a term in it that leads to the glossary."""

    text: str
    anchor: str = ""


@dataclass(frozen=True)
class ShownTerm:
    """An entry of the glossary, with links from what it means to the other terms that it needs."""

    anchor: str
    name: str
    means: list[Piece]


class Glossary:
    """The terms of one page: it links texts to them, and remembers which were met."""

    def __init__(self, own: Mapping[str, Term]) -> None:
        self._terms = {**shipped(), **own}
        # A lab's own come last, so that they win where two terms have the same form.
        self._forms = {form: name for name, term in self._terms.items() for form in _forms(name, term)}
        # The longest first, for a page table is more than a page; and whole words, for slabinfo is no slab.
        ordered = sorted(self._forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)")
        numbered = enumerate(self._terms, 1)
        self._anchors = {name: f"term-{number}-{re.sub(r'[^a-z0-9]+', '-', name.lower())[:40]}".rstrip("-") for number, name in numbered}
        self._met: dict[str, None] = {}

    def notice(self, texts: Sequence[str]) -> None:
        """Meet the terms of texts that get no links."""
        for text in texts:
            self._met.update((self._forms[found[0]], None) for found in self._pattern.finditer(text))

    def linked(self, texts: Sequence[str], *, but: str = "") -> list[list[Piece]]:
        """The texts in pieces, each term a link where it stands first among them: more links would be in a reader's way. Of no text: none.

        ``but`` is a term that is left as it is.
        """
        seen = {but}
        return [list(self._pieces(text, seen)) for text in texts]

    def entries(self) -> list[ShownTerm]:
        """The terms that were met, and those that explaining them needs, in the order of the alphabet."""
        means: dict[str, list[Piece]] = {}
        while left := [name for name in self._met if name not in means]:
            means |= {name: self.linked([self._terms[name].means], but=name)[0] for name in left}
        return [ShownTerm(self._anchors[name], name, means[name]) for name in sorted(means, key=lambda name: (name.casefold(), name))]

    def _pieces(self, text: str, seen: set[str]) -> Iterator[Piece]:
        end = 0
        for found in self._pattern.finditer(text):
            name = self._forms[found[0]]
            if name not in seen:
                seen.add(name)
                self._met[name] = None
                if found.start() > end:
                    yield Piece(text[end : found.start()])
                yield Piece(found[0], self._anchors[name])
                end = found.end()
        if text[end:]:
            yield Piece(text[end:])


def _forms(name: str, term: Term) -> set[str]:
    """How a term may stand in a text: as it is written, and with a capital letter where it has none."""
    written = {name, *term.also}
    return written | {form[0].upper() + form[1:] for form in written if form == form.lower()}
