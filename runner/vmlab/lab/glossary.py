"""The terms that a report explains: those of the course (``glossary.yaml`` beside this file), and those that a lab adds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field

from vmlab.lab.strict import Strict, Text
from vmlab.yamlfile import validate

FILE = Path(__file__).with_name("glossary.yaml")


class Term(Strict):
    """A term that a second-year student may not know. It is found as it is written, in whole words."""

    means: Text = Field(description="what it means, in a sentence or two that need no other term")
    also: list[Text] = Field(default_factory=list, description="other forms in which texts have it, such as its plural")


class Terms(Strict):
    """The whole of ``glossary.yaml``."""

    terms: dict[Text, Term]


@cache
def shipped() -> Mapping[str, Term]:
    """The terms of the course."""
    return validate(FILE, Terms).terms
