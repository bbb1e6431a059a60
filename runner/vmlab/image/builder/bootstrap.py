"""Packages to a tar of a whole system, by mmdebstrap."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from vmlab.errors import HostError
from vmlab.image.builder import namespace
from vmlab.image.builder.mirror import Mirror
from vmlab.image.builder.recipe import Parameters, Recipe, recipe_files
from vmlab.image.builder.workshop import Workshop

# Where the customise script lies in the new system while it runs.
_SCRIPT = "customise.sh"


def bootstrap(recipe: Recipe, parameters: Parameters, folder: Path, *, mirror: Mirror, tar: Path, shop: Workshop) -> None:
    """Install the recipe's packages, its files and its changes, and write the system to ``tar``."""
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        raise HostError("the keys of the Debian archive are not installed", hint="sudo apt-get install debian-archive-keyring")
    (shop.directory / "additions.tar").write_bytes(_additions(folder))
    argv = [
        *namespace.prefix(),
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        f"--architectures={recipe.architecture}",
        f"--include={','.join((*recipe.packages, *parameters.packages))}",
        "--aptopt=APT::Install-Recommends false",
        # Package lists in other languages are never read.
        "--aptopt=Acquire::Languages none",
        # A build that is cut off starts again from nothing, so nothing is gained by syncing each file to the disk.
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude_paths),
        *(f"--hook-dir=/usr/share/mmdebstrap/hooks/{hook}" for hook in parameters.mmdebstrap_hooks),
        # Relative to the working directory: mmdebstrap splits this text at spaces, and a path of the user's may hold one.
        "--customize-hook=tar-in additions.tar /",
        f'--customize-hook=chroot "$1" sh /{_SCRIPT}',
        f'--customize-hook=rm "$1/{_SCRIPT}"',
        parameters.suite,
        str(tar),
        *mirror.lines,
    ]
    # INITRD=No keeps the kernel package from making its own initrd; ours is smaller and needs none of its tools.
    shop.run(argv, env={"INITRD": "No", "TMPDIR": str(shop.directory)})


def _additions(folder: Path) -> bytes:
    """The recipe's ``files/`` and its customise script as a tar: owned by root, whoever made the clone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in recipe_files(folder / "files"):
            _add(tar, path.relative_to(folder / "files").as_posix(), path)
        _add(tar, _SCRIPT, folder / _SCRIPT)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    info.size = path.stat().st_size
    info.mode = 0o644  # the customise script makes programs executable
    info.mtime = 0  # A clone's files are as old as the clone.
    with path.open("rb") as content:
        tar.addfile(info, content)
