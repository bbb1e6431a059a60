"""Labs for tests of many: each is a folder that a test writes, and does one thing within a second. Only one kind starts a guest."""

from __future__ import annotations

import textwrap
from pathlib import Path

DOES = {
    "pass": "",
    "fail": "",
    "guest": 'observed["said"] = bench.guest().run("echo hello").stdout.strip()',
    # (Tests of the cluster name the place: there the lab lies in a directory of the worker's.)
    "wait": """place = Path(os.environ.get("VMLAB_TEST_PLACE", HERE))
(place / f"began-{os.getpid()}").touch(exist_ok=False)
while not (place / "go").exists():
    time.sleep(0.02)""",
    "break": 'raise RuntimeError("broken on purpose")',
    "break once": 'if not (HERE / "broke").exists():\n    (HERE / "broke").touch()\n    raise RuntimeError("broken once")',
    "die": "os.kill(os.getpid(), 9)",
}


def write_lab(labs: Path, name: str, does: str = "pass", *, exclusive: bool = False, memory_mib: int = 128, cpus: int = 1) -> Path:
    """A lab of one check, which passes unless the lab ``does`` something else; its folder."""
    folder = labs / name
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text(
        textwrap.dedent(f"""\
            title: The lab {name}
            summary: It does what a test wants.
            claims:
              X1: {{says: "It is so.", stands: holds}}
            guests:
              main: {{memory_mib: {512 if does == "guest" else memory_mib}, cpus: {cpus}}}
            parameters:
              answer: {{type: integer, default: 42, help: what is recorded}}
            exclusive: {str(exclusive).lower()}
            """)
    )
    (folder / "experiment.py").write_text(
        "import os\nimport time\nfrom pathlib import Path\n\nHERE = Path(__file__).parent\n\n\ndef experiment(bench):\n"
        '    observed = {"answer": bench.parameters["answer"]}\n'
        + textwrap.indent(DOES[does], "    ")
        + f'\n    observed["right"] = {does != "fail"}\n    bench.record("seen", observed)\n'
    )
    (folder / "checks.py").write_text(
        textwrap.dedent("""\
            from vmlab.lab import check, failed, not_observable, passed


            @check(points=1, claim="X1")
            def it_is_so(evidence):
                \"\"\"It is so.\"\"\"
                seen = evidence["seen"]
                if seen.flag("right"):
                    return passed("It was.", measured=str(seen.integer("answer")))
                return failed("It was <not> so.", expected="so", measured="otherwise", hint="Look again.")


            @check(points=2, claim="X1")
            def it_cannot_be_seen(evidence):
                \"\"\"What no host can show.\"\"\"
                return not_observable("There is nothing to see.")
            """)
    )
    return folder
