#!/usr/bin/env python3
"""Pack what the appliance is made of out of the guest that this runs in, as a tar on standard output: a root directory.

    usr/bin/python3, usr/lib/...         the interpreter, its loader, its standard library and what that links to
    usr/bin/kmod, usr/sbin/modprobe ...  what loads modules
    usr/lib/modules/...                  the modules of KVM with those that they need, unpacked

Run as root, by the Python that is to be packed.
"""

from __future__ import annotations

import importlib.util
import io
import json
import lzma
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

DRIVERS = ("kvm_intel", "kvm_amd")

# Parts of the standard library that no script in so small a system can use: tests, windows, installers, and this interpreter's own making.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data", "site-packages", "dist-packages"}

# Compiled modules that are left out for the libraries that they bring, a third of it all: databases, TLS, terminals. (hashlib does without
# OpenSSL.) And what Python tests itself with.
NOT_COMPILED = ("_sqlite3", "_dbm", "_gdbm", "_ssl", "_hashlib", "readline", "_curses", "_tkinter", "_test", "_ctypes_test", "_xx", "xx")

# Imports the compiled modules that can be imported, then tells which files are mapped into memory for it.
_USED = """
import importlib, json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*.so"):
    name = path.name.partition(".")[0]
    if not name.startswith(tuple(sys.argv[2:])):
        try:
            importlib.import_module(name)
        except ImportError:
            pass
mapped = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}
print(json.dumps(sorted(mapped)))
"""

Tar = tarfile.TarFile


def add(tar: Tar, name: str, content: bytes, mode: int = 0o644) -> None:
    """A file."""
    member = tarfile.TarInfo(name.lstrip("/"))
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def link(tar: Tar, name: str, target: str) -> None:
    """A symbolic link."""
    member = tarfile.TarInfo(name.lstrip("/"))
    member.type, member.linkname = tarfile.SYMTYPE, target
    tar.addfile(member)


def compiled(source: Path) -> bytes:
    """A module's byte code: as the distribution compiled it, else compiled now."""
    kept = Path(importlib.util.cache_from_source(str(source)))
    if kept.is_file() and kept.read_bytes()[:4] == importlib.util.MAGIC_NUMBER:
        return kept.read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "module.pyc")
        py_compile.compile(str(source), str(target), doraise=True)
        return target.read_bytes()


def library() -> Iterator[Path]:
    """The modules of the standard library that are written in Python."""
    home = Path(sysconfig.get_path("stdlib"))
    for path in sorted(home.rglob("*.py")):
        if not LEFT_OUT & set(path.relative_to(home).parts) and not path.parts[-2].startswith("config-"):
            yield path


def mapped() -> list[Path]:
    """The interpreter with all that its compiled modules need: every file that it maps into memory for them."""
    words = [sys.executable, "-SE", "-c", _USED, str(Path(sysconfig.get_path("stdlib"), "lib-dynload")), *NOT_COMPILED]
    return [Path(name) for name in json.loads(subprocess.run(words, env={}, stdout=subprocess.PIPE, check=True).stdout)]


def linked_to(program: str) -> list[Path]:
    """The libraries that a program is linked to (ldd(1))."""
    shown = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Path(name).resolve() for name in re.findall(r"=> (/\S+)", shown)]


def links_to(library: Path) -> list[Path]:
    """The names beside a library that lead to it: programs ask for libz.so.1 and not for libz.so.1.3.1."""
    return [path for path in library.parent.glob("lib*.so*") if path.is_symlink() and path.resolve() == library]


def load_order(driver: str) -> list[Path]:
    """A driver's module file, after those that it needs."""
    shown = subprocess.run(["modprobe", "--show-depends", driver], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Path(words[1]).resolve() for words in map(str.split, shown.splitlines()) if words[0] == "insmod"]


def modules_tree(scratch: Path) -> Path:
    """KVM's modules and the tables by which modprobe finds them (depmod(8)), below a directory; returns that of this kernel in it."""
    release = os.uname().release
    tree, system = scratch / "usr/lib/modules" / release, (Path("/lib/modules") / release).resolve()
    tree.mkdir(parents=True)
    # Some versions of depmod look below usr/lib, others below lib.
    (scratch / "lib").symlink_to("usr/lib")
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (system / name).is_file():
            shutil.copyfile(system / name, tree / name)
    for module in {path for driver in DRIVERS for path in load_order(driver)}:
        content = module.read_bytes()
        target = tree / module.relative_to(system)
        if module.suffix == ".xz":
            # An emulated processor takes seconds to unpack it.
            content, target = lzma.decompress(content), target.with_suffix("")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    subprocess.run(["depmod", "-b", str(scratch), release], check=True)
    return tree


def main() -> None:
    """Write the tar."""
    interpreter, kmod = Path(sys.executable).resolve(), shutil.which("kmod")
    if kmod is None:
        raise FileNotFoundError("kmod")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar, tempfile.TemporaryDirectory() as scratch:
        link(tar, "lib", "usr/lib")
        for path in sorted({*mapped(), *linked_to(kmod)}):
            if path == interpreter:
                add(tar, "usr/bin/python3", path.read_bytes(), 0o755)
            elif path.name.startswith("ld-linux"):
                # Where every program of this architecture names it (System V ABI, AMD64 supplement, "program interpreter").
                add(tar, "lib64/ld-linux-x86-64.so.2", path.read_bytes(), 0o755)
            elif path.is_file():
                add(tar, str(path), path.read_bytes(), 0o755)
                for other in links_to(path):
                    link(tar, str(other), path.name)
        for path in library():
            add(tar, f"{path}c", compiled(path))
        add(tar, "usr/bin/kmod", Path(kmod).read_bytes(), 0o755)
        for name in ("modprobe", "rmmod", "insmod", "lsmod"):
            link(tar, f"usr/sbin/{name}", "../bin/kmod")
        tree = modules_tree(Path(scratch))
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            add(tar, str(path.relative_to(scratch)), path.read_bytes())


if __name__ == "__main__":
    main()
