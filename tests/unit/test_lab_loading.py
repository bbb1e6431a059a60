"""A lab's Python files as a package of its own."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmlab.errors import UsageError
from vmlab.lab import Evidence, Lab, judge, read_lab
from vmlab.lab.collection import Collection
from vmlab.lab.skeleton import create

MODEL = """
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    HARD = 1


@dataclass(frozen=True)
class Service:
    name: str


def twice(x: int) -> int:
    return 2 * x
"""
CHECK = '''
from vmlab.lab import Evidence, Verdict, check, passed


@check(points=1, claim="L1")
def {name}(evidence: Evidence) -> Verdict:
    """There is more."""
    return passed("so it is", measured=str({value}))
'''


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return read_lab(create("sample", tmp_path))


def write(lab: Lab, **files: str) -> None:
    """Write files of the lab by their names, before what they hold already: ``checks`` is checks.py."""
    for name, text in files.items():
        path = lab.directory / f"{name}.py"
        path.write_text(text + (path.read_text() if path.exists() else ""))


def refusal(call: Callable[[], object]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        call()
    assert "_vmlab_lab_" not in caught.value.message, "the package's private name means nothing to an author"
    return caught.value


def module_of(function: Callable[..., object] | None) -> Any:
    assert function is not None
    return sys.modules[function.__module__]


def test_what_the_lab_shares_is_one_object_to_all_of_it(lab: Lab, tmp_path: Path) -> None:
    count = f"with open({str(tmp_path / 'runs')!r}, 'a') as runs:\n    runs.write('x')\n"
    write(lab, model=MODEL + count, helper="from .model import Kind, Service\nfrom . import model\n")
    for name in ("experiment", "checks"):
        write(lab, **{name: "from . import helper, model\nfrom .model import Kind, Service\nHERE = (Kind.HARD, Service('a'))\n"})
    write(lab, checks_more="from .model import Kind, Service\nHERE = (Kind.HARD, Service('a'))\n" + CHECK.format(name="more", value=1))
    checks, experiment = lab.load_checks(), lab.load_experiment()
    modules = [module_of(checks[0].function), module_of(checks[-1].function), module_of(experiment.whole)]
    assert len({id(module) for module in modules}) == 3
    assert {module.HERE for module in modules} == {modules[0].HERE}
    assert all(module.Kind.HARD is modules[0].Kind.HARD for module in modules)
    assert modules[0].helper.model is modules[0].model
    assert (tmp_path / "runs").read_text() == "x"


def test_what_is_loaded_again_has_its_own_modules(lab: Lab) -> None:
    """A run may leave something in a module; the next one does not find it there."""
    write(lab, model=MODEL, checks="from . import model\n")
    first, second = (module_of(each.load_checks()[0].function) for each in (lab, read_lab(lab.directory)))
    assert first.model is not second.model


@pytest.mark.parametrize("name", ["my-lab", "a.b", "class", "json", "été", "zombies"])
def test_a_lab_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = create("sample", tmp_path).rename(tmp_path / name)
    lab = read_lab(folder)
    write(lab, model=MODEL, checks="from .model import twice\nimport json\n", experiment="from . import model\n")
    assert module_of(lab.load_checks()[0].function).twice(21) == 42
    assert module_of(lab.load_experiment().whole).model.twice(21) == 42


@pytest.mark.parametrize("again", [False, True])
def test_a_changed_module_is_seen_by_the_next_load(lab: Lab, again: bool) -> None:
    write(
        lab,
        deep="FACTOR = 2\n",
        model="from . import deep\n",
        checks_more="from . import model\n" + CHECK.format(name="more", value="model.deep.FACTOR"),
    )
    old = lab.load_checks()
    for factor in (3, 4):
        # (As quickly as can be, and of the same length: neither a file's time nor its size tells.)
        (lab.directory / "deep.py").write_text(f"FACTOR = {factor}\n")
        new = (read_lab(lab.directory) if again else lab).load_checks()
        assert judge(new, Evidence({}))[-1].verdict.measured == str(factor)
    assert judge(old, Evidence({}))[-1].verdict.measured == "2", "what was loaded stays as it was"


def test_a_module_that_is_written_later_is_found(lab: Lab) -> None:
    write(lab, checks="from . import model\n")
    assert "model" in refusal(lab.load_checks).message
    write(lab, model=MODEL)
    assert lab.load_checks()


def test_a_data_file_that_a_module_reads_counts_too(lab: Lab) -> None:
    (lab.directory / "limits.txt").write_text("2")
    write(lab, checks="from pathlib import Path\nLIMIT = Path(__file__).with_name('limits.txt').read_text()\n")
    assert module_of(lab.load_checks()[0].function).LIMIT == "2"
    (lab.directory / "limits.txt").write_text("3")
    assert module_of(lab.load_checks()[0].function).LIMIT == "3"


def test_labs_with_modules_of_one_name_never_meet(tmp_path: Path) -> None:
    found = []
    for shelf, name in (("one", "first"), ("one", "second"), ("other", "first")):
        create(name, tmp_path / shelf)
        lab = Collection([tmp_path / shelf]).get(name)
        write(lab, model=f"WHOSE = {shelf + name!r}\n", checks="from . import model\n", experiment="from . import model\n")
        found += [(lab, shelf + name)]
    for lab, whose in found:
        assert whose == module_of(lab.load_checks()[0].function).model.WHOSE
        assert whose == module_of(lab.load_experiment().whole).model.WHOSE


def test_a_lab_that_is_a_link(tmp_path: Path, lab: Lab) -> None:
    write(lab, model=MODEL, checks="from . import model\n")
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "linked").symlink_to(lab.directory)
    assert Collection([tmp_path / "labs"]).get("linked").load_checks()


def test_an_init_file_and_packages_within(lab: Lab) -> None:
    for name in ("inner", "plain"):
        (lab.directory / name).mkdir()
        (lab.directory / name / "part.py").write_text("from .. import model\nfrom ..model import twice\nANSWER = twice(21)\n")
    (lab.directory / "inner" / "__init__.py").write_text("from .part import ANSWER\n")
    (lab.directory / "__init__.py").write_text("LIMIT = 7\n")
    write(lab, model=MODEL, checks="from . import LIMIT, inner\nfrom .plain.part import ANSWER\n")
    module = module_of(lab.load_checks()[0].function)
    assert (module.LIMIT, module.inner.ANSWER, module.ANSWER) == (7, 42, 42)


def test_an_init_file_is_not_needed_to_run(lab: Lab) -> None:
    (lab.directory / "__init__.py").unlink()
    write(lab, model=MODEL, checks="from . import model\n")
    assert lab.load_checks()


def test_a_module_named_like_one_of_pythons_own(lab: Lab) -> None:
    write(lab, statistics="OURS = True\n", checks="import statistics\nfrom . import statistics as ours\n")
    module = module_of(lab.load_checks()[0].function)
    assert module.statistics is statistics
    assert module.ours.OURS


def test_an_import_within_a_function(lab: Lab) -> None:
    write(
        lab,
        model=MODEL,
        checks_more=CHECK.format(name="more", value="answer()") + "\ndef answer():\n    from .model import twice\n    return twice(21)\n",
    )
    assert judge(lab.load_checks(), Evidence({}))[-1].verdict.measured == "42"


def test_modules_may_import_each_other(lab: Lab) -> None:
    write(
        lab,
        a="from . import b\n\n\ndef one():\n    return 1\n",
        b="from . import a\n\n\ndef two():\n    return 2 * a.one()\n",
        checks="from . import a\n",
    )
    assert module_of(lab.load_checks()[0].function).a.b.two() == 2


def test_nothing_is_left_in_the_folder(lab: Lab) -> None:
    (lab.directory / "inner").mkdir()
    write(
        lab, model=MODEL, **{"inner/part": ""}, checks="from . import model\nfrom .inner import part\n", experiment="from . import model\n"
    )
    before, names, path = sorted(lab.directory.rglob("*")), set(sys.modules), list(sys.path)
    lab.load_checks()
    lab.load_experiment()
    assert sorted(lab.directory.rglob("*")) == before
    assert all(name.startswith("_vmlab_lab_") for name in set(sys.modules) - names)
    assert sys.path == path


def test_a_check_that_another_file_imports_counts_once(lab: Lab) -> None:
    before = [each.id for each in lab.load_checks()]
    write(
        lab, checks_more="from .checks import touching_takes_frames\n" + CHECK.format(name="more", value="touching_takes_frames.__name__")
    )
    assert [each.id for each in lab.load_checks()] == [*before, "more"]


@pytest.mark.parametrize(
    ("files", "says", "hint"),
    [
        ({"model": "x = 1\ny = 1 / 0\n"}, "sample/model.py:2: ZeroDivisionError: division by zero", ""),
        ({"model": "def broken(:\n"}, "sample/model.py:1: invalid syntax", ""),
        ({"model": "x = '\x00'\n"}, "sample/model.py", ""),
        ({"model": "raise SystemExit(3)\n"}, "sample/model.py:1: SystemExit: 3", ""),
        ({"model": "\nraise ValueError('one\\ntwo')\n"}, "sample/model.py:2: ValueError: one two", ""),
        ({"model": "import nothing_of_this_name\n"}, "sample/model.py:1: ModuleNotFoundError: No module named 'nothing_of_this_name'", ""),
        ({"model": "from . import deep\n", "deep": "\n\n1 / 0\n"}, "sample/deep.py:3: ZeroDivisionError", ""),
        (
            {"model": "def f():\n    pass\n\ndef f():\n    pass\n"},
            "sample/model.py:4: the function f stands here twice (first in line 1)",
            "",
        ),
        ({"models": ""}, "sample/checks.py:1: ImportError: cannot import name 'model' from 'sample'", "did you mean 'models'?"),
        (
            {"model": "from .deeep import x\n", "deep": ""},
            "sample/model.py:1: ModuleNotFoundError: No module named 'sample.deeep'",
            "'deep'",
        ),
        (
            {"model": "from .deep import y\n", "deep": "x = 1\n"},
            "sample/model.py:1: ImportError: cannot import name 'y' from 'sample.deep'",
            "",
        ),
        ({"model": "import deep\n", "deep": ""}, "sample/model.py:1: ModuleNotFoundError: No module named 'deep'", "from . import deep"),
        (
            {"model": "from sample import deep\n", "deep": ""},
            "sample/model.py:1: ModuleNotFoundError: No module named 'sample'",
            "from . import",
        ),
        (
            {"model": "from .deep import x\ny = 1\n", "deep": "from .model import y\nx = 1\n"},
            "sample/deep.py:1: ImportError: cannot import name 'y' from partially initialized module 'sample.model'",
            "import each other",
        ),
        ({"model": "\nfrom .. import x\n"}, "sample/model.py:2: from .. import x: this reaches beyond the lab's folder", "its own modules"),
        (
            {"model": "def f():\n    from ..other import x, y\n"},
            "model.py:2: from ..other import x, y: this reaches beyond the lab's folder",
            "",
        ),
        ({"model": "from . import guest\n"}, "sample/model.py:1: from . import guest: guest/ cannot be imported by the lab", ""),
        (
            {"model": "from .guest.touch import main\n"},
            "model.py:1: from .guest.touch import main: guest/ cannot be imported by the lab",
            "",
        ),
        ({"model": "from .guest import touch\n"}, "model.py:1: from .guest import touch: guest/ cannot be imported by the lab", ""),
        ({"model": "from .tests.test_sample import LAB\n"}, "import LAB: tests/ cannot be imported by the lab", ""),
        ({"model": "from . import experiment\n"}, "sample/model.py:1: from . import experiment: nothing imports experiment.py", ""),
        ({"model": "", "checks": "from .experiment import experiment\n"}, "nothing imports experiment.py", ""),
        ({"model": "from .checks import mapping_takes_no_frames\n"}, "only checks import checks.py", ""),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(lab: Lab, files: dict[str, str], says: str, hint: str) -> None:
    write(lab, **({"checks": "from . import model\n"} | files) if "checks" not in files else files)
    error = refusal(lab.load_checks)
    assert says in error.message
    assert hint in error.hint
    assert "\n" not in error.message


def test_an_experiment_may_not_look_at_the_checks(lab: Lab) -> None:
    write(lab, experiment="from . import checks\n")
    assert "experiment.py:1: from . import checks: only checks import checks.py" in refusal(lab.load_experiment).message


def test_guests_scripts_and_tests_are_not_found_by_another_way_either(lab: Lab) -> None:
    for folder, name in (("guest", "touch"), ("tests", "test_sample")):
        text = f"import importlib\nimportlib.import_module('.{folder}.{name}', __package__)\n"
        (lab.directory / "model.py").write_text(text)
        (lab.directory / "experiment.py").write_text("from . import model\n")
        assert "model.py:2: ModuleNotFoundError" in refusal(lab.load_experiment).message
        assert not list(lab.directory.rglob("__pycache__"))


def test_a_file_whose_name_no_module_can_have(lab: Lab) -> None:
    write(lab, **{"checks_my-part": CHECK.format(name="more", value=1)})
    assert "checks_my-part.py: 'checks_my-part' is no name for a Python module" in refusal(lab.load_checks).message


def test_what_failed_once_can_be_mended(lab: Lab) -> None:
    write(lab, model="1 / 0\n", checks="from . import model\n")
    assert "model.py:1" in refusal(lab.load_checks).message
    (lab.directory / "model.py").write_text("")
    assert lab.load_checks()
    assert callable(lab.load_experiment())
