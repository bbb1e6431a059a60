"""What a lab's ``tests/`` need: sound evidence, ways to break it, and proof that each check can fail and none breaks on garbage.

(The controls of ``lab.yaml``, which break a real guest, are `vmlab.lab.worlds`.)

world     evidence to be broken, and the changes that break it
sound     the evidence of a real run in which every check passes
kept      sound.json: what is kept of a run
thin      long lists of it, kept within reason
table     the controls of a lab's tests, a table
mutation  garbage at every place
"""

from vmlab.lab.controls.mutation import Mutated
from vmlab.lab.controls.sound import Sound
from vmlab.lab.controls.table import Control, Controls
from vmlab.lab.controls.world import Change, World, add, changed, drop, put, take
from vmlab.lab.verdict import VerdictKind

PASS = VerdictKind.PASS
FAIL = VerdictKind.FAIL
INCONCLUSIVE = VerdictKind.INCONCLUSIVE
NOT_OBSERVABLE = VerdictKind.NOT_OBSERVABLE

__all__ = [
    "FAIL",
    "INCONCLUSIVE",
    "NOT_OBSERVABLE",
    "PASS",
    "Change",
    "Control",
    "Controls",
    "Mutated",
    "Sound",
    "World",
    "add",
    "changed",
    "drop",
    "put",
    "take",
]
