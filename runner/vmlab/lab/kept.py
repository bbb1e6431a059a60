"""What an experiment records for a reader, though no check judges it: said in ``lab.yaml``, so that it is no oversight."""

from __future__ import annotations

from pydantic import Field

from vmlab.lab.places import KeptPlace, covers
from vmlab.lab.strict import Strict, Text


class Kept(Strict):
    """Evidence that no check reads, and why it is recorded all the same."""

    places: list[KeptPlace] = Field(
        min_length=1, description="places in the evidence, each with all that lies below it; `*` is any member, `[*]` any index"
    )
    because: Text = Field(description="what a reader finds there; shown in the report's evidence")

    def covers(self, place: str) -> bool:
        """Whether a place of the evidence is among these."""
        return any(covers(each, place) for each in self.places)

    def of(self, observation: str) -> list[str]:
        """Those of its places that lie in one observation."""
        return [each for each in self.places if covers(observation, each)]
