"""A bench with one real guest, booted once for all tests of this folder that share it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import BOOT_S
from tests.stage import stage
from vmlab.bench import Bench, Guest, Notebook
from vmlab.guest.workdir import WorkDir
from vmlab.image.image import Image
from vmlab.lab.collection import read_lab

LAB = Path(__file__).with_name("lab_of_faults")


@dataclass
class World:
    """A bench, what it wrote down, and where."""

    bench: Bench
    notebook: Notebook
    work: WorkDir
    logs: Path

    @property
    def guest(self) -> Guest:
        return self.bench.guest()


MakeWorld = Callable[[Image], World]


@contextlib.contextmanager
def world_of(image: Image, logs: Path, *, time_limit_s: float = 1400) -> Iterator[World]:
    lab = read_lab(LAB)
    with stage(logs, dict.fromkeys(lab.definition.guests, image), limit_s=max(time_limit_s, BOOT_S)) as here:
        yield World(Bench(lab, here, {}), here.notebook, here.work, logs)


@pytest.fixture(scope="session")
def world(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One booted guest of the default image."""
    with world_of(debian13, tmp_path_factory.mktemp("logs")) as made:
        made.bench.guest()
        yield made
