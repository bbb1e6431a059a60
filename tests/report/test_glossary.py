"""The terms that a page explains: found in its texts, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conftest import ROOT
from vmlab.lab.glossary import Term, shipped
from vmlab.report.glossary import Glossary, Piece, _forms

OWN = {
    "frob": Term(means="A thing beside a knob.", also=["frobs"]),
    "knob": Term(means="What a frob turns, in a knob."),
    "unused": Term(means="Nothing speaks of it."),
}


def linked(*texts: str) -> list[list[str]]:
    """The terms that were made links, text by text; all pieces together must be the text."""
    pieces = Glossary(OWN).linked(texts)
    assert ["".join(piece.text for piece in each) for each in pieces] == list(texts)
    return [[piece.text for piece in each if piece.anchor] for each in pieces]


def test_a_term_is_a_link_where_it_stands_first() -> None:
    assert linked("A zombie, two zombies, a page table", "Zombies in frames") == [["zombie", "page table"], ["frames"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Zombies wait", ["Zombies"]),
        ("an EPT/NPT walk", ["EPT"]),
        ("/proc/PID/pagemap and (CR3)", ["pagemap", "CR3"]),
        ("slabinfo, subframe, PS2, my_frob, cr3", []),
        ("the ps of the guest", []),
        ("", []),
    ],
)
def test_whole_words_are_found_as_they_are_written(text: str, found: list[str]) -> None:
    assert linked(text) == [found]


def test_no_text_is_no_pieces() -> None:
    """What a template shows only where there is something is not shown for nothing: "To add:" of a claim without a correction."""
    assert Glossary(OWN).linked(["", "a frob"])[0] == []


def test_only_what_was_met_is_explained_and_what_explaining_it_needs() -> None:
    glossary = Glossary(OWN)
    glossary.notice(["two frobs"])
    frob, knob = glossary.entries()
    assert (frob.name, knob.name) == ("frob", "knob")
    assert frob.means == [Piece("A thing beside a "), Piece("knob", knob.anchor), Piece(".")]
    assert knob.means == [Piece("What a "), Piece("frob", frob.anchor), Piece(" turns, in a knob.")], "a term does not lead to itself"


def test_a_labs_own_words_win() -> None:
    glossary = Glossary({"zombie": Term(means="Ours."), "death": Term(means="Also ours.", also=["reap"])})
    glossary.notice(["a zombie to reap"])
    assert [(each.name, each.means[0].text) for each in glossary.entries()] == [("death", "Also ours."), ("zombie", "Ours.")]


def test_no_two_terms_of_the_course_have_one_form_and_none_is_hollow() -> None:
    forms = Counter(form for name, term in shipped().items() for form in _forms(name, term))
    assert [form for form, count in forms.items() if count > 1] == []
    assert all(term.means.endswith(".") and len(term.means) > 20 for term in shipped().values())


def test_the_terms_that_a_student_stumbled_over_are_explained() -> None:
    wanted = "CR3, pagemap, PS, slab, SUnreclaim, LA57, subreaper, frame, page table, TLB, zombie, reap"
    assert set(wanted.split(", ")) <= set(shipped())


def test_each_term_of_the_course_is_used_by_a_lab() -> None:
    texts = "\n".join(path.read_text() for path in ROOT.glob("labs/*/*") if path.suffix in (".yaml", ".py", ".md"))
    glossary = Glossary({})
    glossary.notice([texts])
    assert {each.name for each in glossary.entries()} == set(shipped())
