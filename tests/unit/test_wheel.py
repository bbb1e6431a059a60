"""What an installed vmlab carries: its code, and the labs, recipes and templates inside it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from vmlab.lab.skeleton import create

ROOT = Path(__file__).resolve().parents[2]
WITHIN = "vmlab/_data"
PACKAGES = ("vmlab/", "vmlab_guest/")


def tracked() -> list[str]:
    """Every file of the checkout that git knows or would know."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


# One worker builds the wheel for all.
pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "-w", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_code_and_data_are_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in tracked():
        top, _, rest = name.partition("/")
        if rest.startswith(PACKAGES):
            assert rest in names
        elif top in {"images", "cloud-init"} or (top == "labs" and "/tests/" not in rest):
            assert f"{WITHIN}/{name}" in names


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    expected = {
        name.removeprefix("runner/") if name.removeprefix("runner/").startswith(PACKAGES) else f"{WITHIN}/{name}" for name in tracked()
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert sorted(names - expected) == []


def test_an_installed_wheel_finds_its_data(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "from vmlab.paths import data_dir; print(*(data_dir(name) for name in ('labs', 'images', 'cloud-init')), sep='\\n')"
    # -P and a working directory elsewhere: the checkout must not lend what the wheel lacks.
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    found = [Path(line) for line in done.stdout.splitlines()]
    assert found == [tmp_path / WITHIN / name for name in ("labs", "images", "cloud-init")], done.stderr
    assert all(any(path.rglob("*")) for path in found)


def test_an_installed_wheel_gives_its_types(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    create("mylab", tmp_path / "mine")
    # A mark that only this copy has: the checkout, which this interpreter finds too, must not lend what the wheel lacks.
    with (installed / "vmlab" / "lab" / "__init__.py").open("a") as init:
        init.write("\nMARK = 1\n")
    with (tmp_path / "mine" / "mylab" / "checks.py").open("a") as checks:
        checks.write("\nfrom vmlab.lab import MARK\n\nmark: int = MARK\n")
    # (What is on PYTHONPATH is to mypy what is installed.)
    argv = [sys.executable, "-P", "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "mylab"]
    environment = {"PYTHONPATH": str(installed), "HOME": str(tmp_path)}
    done = subprocess.run(argv, cwd=tmp_path / "mine", env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.startswith("Success"), done.stdout + done.stderr


def test_the_editable_installation_leaves_no_second_package_beside_it() -> None:
    """A folder vmlab without code in site-packages would be to some tools what `import vmlab` finds."""
    purelib = Path(sysconfig.get_path("purelib"))
    if not (purelib / "_vmlab.pth").exists():
        pytest.skip("vmlab is not installed from a checkout here")
    assert not [path for path in (purelib / "vmlab").rglob("*") if path.is_file()]
