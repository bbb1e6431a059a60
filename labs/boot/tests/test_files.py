"""What the lab puts into the guest: LSB scripts and units that say the same, and a service that does what its cost says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stage import stage
from vmlab.bench import Bench
from vmlab.lab import read_lab

from ..experiment import installation

LAB = Path(__file__).resolve().parents[1]
GRAPHS = yaml.safe_load((LAB / "graph.yaml").read_text())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The files of the first boot's cloud-config, by their paths in the guest."""
    with stage(tmp_path_factory.mktemp("logs")) as here:
        bench = Bench(read_lab(LAB), here, {"scale": 2})
        made = installation(bench, GRAPHS)
        yield {each["path"]: each["content"] for each in made["write_files"]}


def headers(script: str) -> dict[str, list[str]]:
    return {key: value.split() for key, value in re.findall(r"^# ([A-Z]\S+):[ ]*(.*)$", script, re.MULTILINE)}


@pytest.mark.parametrize(
    ("graph", "name", "service"),
    [(graph, name, each) for graph, described in GRAPHS.items() for name, each in described["services"].items()],
)
def test_script_and_unit_declare_the_same(files: dict[str, str], graph: str, name: str, service: Any) -> None:
    level = GRAPHS[graph]["runlevel"]
    script, unit = files[f"/etc/init.d/lab-{name}"], files[f"/usr/lib/bootlab/native-{level}/lab-{name}.service"]
    said = headers(script)
    after = [f"lab-{each}" for each in service.get("after", [])]
    assert said["Provides"] == [f"lab-{name}"]
    assert said["Required-Start"] == said["Required-Stop"] == after
    assert said["Default-Start"] == [str(level)]
    assert said["Default-Stop"] == ["0", "1", "6"]
    lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    assert lines.get("After", "").split() == lines.get("Requires", "").split() == [f"{each}.service" for each in after]
    words = re.search(r"^name=\S+ kind=\S+ cost=\S+", script, re.MULTILINE)
    assert words is not None
    assert lines["Environment"] == f"{words[0]} action=start", "both run the same service"
    cost = f"{service['sleep'] * 2:g}" if "sleep" in service else f"{service['burn'] * 200:g}"
    assert float(words[0].partition("cost=")[2]) == float(cost), "scaled; a burner's in hundredths"


@pytest.mark.parametrize("graph", list(GRAPHS))
def test_the_last_service_waits_for_all_and_reports(files: dict[str, str], graph: str) -> None:
    script = files[f"/etc/init.d/lab-ready-{graph}"]
    assert set(headers(script)["Required-Start"]) == {f"lab-{name}" for name in GRAPHS[graph]["services"]}
    assert "report.sh" in script
    assert "report.sh" in files[f"/usr/lib/bootlab/native-{GRAPHS[graph]['runlevel']}/lab-ready-{graph}.service"]


@pytest.mark.parametrize("path", ["service.sh", "report.sh", "inittab.sh", "generator.sh"])
def test_scripts_are_posix_shell(files: dict[str, str], path: str) -> None:
    text = next(
        content for name, content in files.items() if name.endswith((f"/{path}", "generators/bootlab" if "generator" in path else path))
    )
    subprocess.run(["/bin/dash", "-n", "-c", text], check=True)


def test_what_installs_them_is_python(files: dict[str, str]) -> None:
    compile(files["/usr/lib/bootlab/install.py"], "install.py", "exec")


def run_service(files: dict[str, str], port: Path, **words: str) -> list[list[str]]:
    """Run a service on this machine, with a file for the port, and return the marks that it made."""
    port.touch()
    script = files["/usr/lib/bootlab/service.sh"].replace("/dev/ttyS1", str(port)).replace("exec 3>", "exec 3>>")
    subprocess.run(["/bin/dash", "-c", script], env={**os.environ, "action": "start", "cost": "0", **words}, check=True)
    return [line.split() for line in port.read_text().splitlines()]


def test_a_sleeper_takes_its_time_and_no_cpu(files: dict[str, str], tmp_path: Path) -> None:
    begin, end = run_service(files, tmp_path / "port", name="a", kind="sleep", cost="0.3")
    assert begin[:2] == ["begin", "a"]
    assert end[:2] == ["end", "a"]
    assert float(end[2]) - float(begin[2]) >= 0.28
    assert int(end[3]) < 20
    assert end[4] == "0"


def test_a_burner_burns_its_cpu_time_however_long_it_takes(files: dict[str, str], tmp_path: Path) -> None:
    begin, end = run_service(files, tmp_path / "port", name="b", kind="burn", cost="20")
    assert 20 <= int(end[3]) <= 40
    assert int(end[4]) > 0
    assert float(end[2]) - float(begin[2]) >= 0.18


def test_a_service_that_is_stopped_says_so(files: dict[str, str], tmp_path: Path) -> None:
    (stop,) = run_service(files, tmp_path / "port", name="a", kind="sleep", action="stop")
    assert stop[:2] == ["stop", "a"]
    assert len(stop) == 3
