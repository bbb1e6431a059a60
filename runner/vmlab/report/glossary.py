"""The glossary of a page: the terms that its texts use, and those texts with each term as a link to what it means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmlab.lab.glossary import Term, shipped
from vmlab.report.text import plain

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class ShownTerm:
    """An entry of the glossary, with links from what it means to the other terms that it needs."""

    anchor: str
    name: str
    means: Markup


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

    def linked(self, texts: Sequence[str], *, but: str = "") -> list[Markup]:
        """The texts, printable and escaped, each term a link where it stands first among them: more links would be in a reader's way.

        ``but`` is a term that is left as it is.
        """
        from markupsafe import Markup  # noqa: PLC0415 (only who renders a page pays for it)

        seen = {but}
        return [Markup("").join(self._pieces(plain(text), seen)) for text in texts]

    def entries(self) -> list[ShownTerm]:
        """The terms that were met, and those that explaining them needs, in the order of the alphabet."""
        means: dict[str, Markup] = {}
        while left := [name for name in self._met if name not in means]:
            means |= {name: self.linked([self._terms[name].means], but=name)[0] for name in left}
        return [ShownTerm(self._anchors[name], name, means[name]) for name in sorted(means, key=lambda name: (name.casefold(), name))]

    def _pieces(self, text: str, seen: set[str]) -> Iterator[Markup]:
        from markupsafe import Markup, escape  # noqa: PLC0415

        end = 0
        for found in self._pattern.finditer(text):
            name = self._forms[found[0]]
            if name not in seen:
                seen.add(name)
                self._met[name] = None
                yield escape(text[end : found.start()])
                yield Markup('<a class="term" href="#{}">{}</a>').format(self._anchors[name], found[0])
                end = found.end()
        yield escape(text[end:])


def _forms(name: str, term: Term) -> set[str]:
    """How a term may stand in a text: as it is written, and with a capital letter where it has none."""
    written = {name, *term.also}
    return written | {form[0].upper() + form[1:] for form in written if form == form.lower()}
