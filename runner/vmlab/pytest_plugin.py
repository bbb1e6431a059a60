"""Labs as tests: ``pytest labs/`` runs each lab once and shows one test a check.

A check that passes is a test that passes, *not-observable* is a skip with the reason, *fail* and *inconclusive* are failures with the
check's own words, and *error* is an error of the test's setup: not what the test is about.

Labs are run only when the command line names them, or a folder around them: a project whose tests lie beside its labs does not want to
boot guests whenever somebody types ``pytest``.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vmlab.many.job import Result
    from vmlab.report.batch import Trouble
    from vmlab.report.model import CheckPart, Report
    from vmlab.run.request import RunRequest

# What the workers of pytest-xdist are told: whether to collect labs, and a directory that they share.
_COLLECT, _SHARED = "vmlab_collect", "vmlab_shared"
_shared = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options that the command line has too."""
    group = parser.getgroup("vmlab", "operating-systems labs")
    group.addoption("--lab-param", action="append", default=[], metavar="NAME=VALUE", help="set a parameter of the labs; may be repeated")
    group.addoption("--accel", choices=["auto", "kvm", "tcg"], default="auto", help="the accelerator of labs' guests; kvm means: or fail")
    group.addoption("--lab-image", metavar="IMAGE", help="the image that labs' guests boot; by default the lab's first")
    group.addoption("--lab-cold", action="store_true", help="boot every guest, even where a clone of a booted one would do")
    group.addoption("--lab-reports", type=Path, default=Path("reports"), metavar="DIR", help="where labs' reports go (default: reports)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A lab's checks are best met in one worker of pytest-xdist: where they are spread, all workers but one wait for the lab's end."""
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadgroup"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist, whose own command line names everything, whether ours names labs; and where workers meet."""
    if _shared not in node.config.stash:
        node.config.stash[_shared] = Path(tempfile.mkdtemp(prefix="vmlab-pytest-"))
    node.workerinput[_COLLECT] = _is_asked_for(node.config)
    node.workerinput[_SHARED] = str(node.config.stash[_shared])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove where the workers met."""
    shared = config.stash.get(_shared, None)
    if shared is not None:
        shutil.rmtree(shared, ignore_errors=True)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> LabFile | None:
    """A lab for each ``lab.yaml`` with checks beside it."""
    if file_path.name != "lab.yaml" or not file_path.with_name("checks.py").is_file() or not _is_asked_for(parent.config):
        return None
    return LabFile.from_parent(parent, path=file_path)


def _is_asked_for(config: pytest.Config) -> bool:
    told = getattr(config, "workerinput", {}).get(_COLLECT)
    return config.args_source is pytest.Config.ArgsSource.ARGS if told is None else bool(told)


class LabFile(pytest.File):
    """A lab. It is run when the first of its checks is asked for, and once."""

    _request: RunRequest
    _ended: tuple[Report, Path] | Trouble | None = None

    def collect(self) -> Iterator[LabCheck]:
        """Its checks, in the order of the text."""
        from vmlab.errors import VmlabError
        from vmlab.lab.parameters import split
        from vmlab.run.request import Job, prepare
        from vmlab.run.session import Choice

        folder, option = self.path.parent, self.config.option
        try:
            job = Job(
                id=folder.name,
                lab=folder.name,
                reports=option.lab_reports,
                command=shlex.join(["pytest", *sys.argv[1:]]),
                labs=(folder.parent,),
                given=split(option.lab_param),
                choice=Choice(accelerator=option.accel, image=option.lab_image, cold=option.lab_cold),
            )
            self._request = prepare(job)
        except VmlabError as exc:
            raise self.CollectError(f"{exc.message}\n{exc.hint}") from exc
        for check in self._request.checks:
            item = LabCheck.from_parent(self, name=check.id, title=check.title)
            # (All of a lab in one worker, whatever else runs.)
            item.add_marker(pytest.mark.xdist_group(f"lab-{folder.name}"))
            yield item

    def ended(self) -> tuple[Report, Path] | Trouble:
        """The report and its directory, or why there is none."""
        from vmlab.report import store

        if self._ended is None:
            result = self._run_once()
            self._ended = result.trouble if result.directory is None else (store.load(result.directory), result.directory)
        assert self._ended is not None
        return self._ended

    def _run_once(self) -> Result:
        """Run the lab, or take over what another worker of pytest-xdist found.

        (Grouping alone would not do: it is switched off by ``--dist worksteal``, and does nothing with pytest 9.2 and xdist 3.8.)
        """
        from vmlab import lease
        from vmlab.deadline import Deadline
        from vmlab.many.job import perform
        from vmlab.progress import Progress

        shared = getattr(self.config, "workerinput", {}).get(_SHARED)
        if shared is None:
            return perform(self._request.job, Progress())
        found = Path(shared) / hashlib.sha256(str(self.path).encode()).hexdigest()
        held = lease.take(found.with_suffix(".lock"), Deadline(math.inf))
        assert held is not None, "a wait without an end ends with the lease"
        with held:
            if not found.exists():
                found.write_bytes(pickle.dumps(perform(self._request.job, Progress())))
            result: Result = pickle.loads(found.read_bytes())  # noqa: S301  (written by ourselves, in a directory that is ours alone)
        return result


class LabCheck(pytest.Item):
    """One check of a lab."""

    parent: LabFile

    def __init__(self, *, title: str, **more: Any) -> None:
        super().__init__(**more)
        self._title = title
        self._part: CheckPart | None = None
        self._directory = Path()

    def setup(self) -> None:
        """Run the lab, unless it has been. What fails in here is an error to pytest: a run that broke has no verdict to give."""
        from vmlab.lab.verdict import VerdictKind

        ended = self.parent.ended()
        if not isinstance(ended, tuple):
            pytest.fail(f"{ended.message}\n{ended.hint}", pytrace=False)
        report, self._directory = ended
        self.user_properties.append(("report", str(self._directory)))
        self._part = next(check for check in report.checks if check.id == self.name)
        if self._part.verdict is VerdictKind.ERROR:
            pytest.fail(self._words(), pytrace=False)

    def runtest(self) -> None:
        """What the verdict means to pytest."""
        assert self._part is not None
        if not self._part.verdict.counts:
            pytest.skip(self._part.rationale)
        if self._part.verdict.needs_attention:
            pytest.fail(self._words(), pytrace=False)

    def _words(self) -> str:
        from vmlab.report.lines import verdict_lines

        assert self._part is not None
        return "\n".join([*verdict_lines(self._part), f"report: {self._directory}"])

    def reportinfo(self) -> tuple[Path, int, str]:
        """The heading of a failure."""
        return self.path, 0, f"{self.path.parent.name}: {self._title}"
