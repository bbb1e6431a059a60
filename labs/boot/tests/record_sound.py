"""Makes sound.json of a report, small enough to be kept: python labs/boot/tests/record_sound.py reports/boot/latest/report.json

Three turns are kept. What is the same in each boot of an arm (the units, the console, the facts) is kept with its first boot;
test_checks.py puts it back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TURNS = 3


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_text())
    observations = {each["name"]: each["data"] for each in report["evidence"]["observations"]}
    observations["plan"]["repeats"] = min(TURNS, observations["plan"]["repeats"])
    observations["boots"]["boots"] = [boot for boot in observations["boots"]["boots"] if boot["turn"] <= TURNS]
    seen: set[tuple[str, str]] = set()
    for name in ("boots", "controls"):
        for boot in observations[name]["boots"]:
            arm = (boot["arm"], boot["graph"])
            for part in ("units", "console", "facts") if arm in seen else ():
                del boot[part]
            seen.add(arm)
    kept = {"parameters": report["run"]["parameters"], "observations": observations}
    Path(__file__).with_name("sound.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")


main()
