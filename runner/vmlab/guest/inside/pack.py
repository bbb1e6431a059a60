#!/usr/bin/env python3
"""Pack what the appliance needs out of the guest that this runs in, as a tar on standard output.

    python/...         the interpreter, its loader, its libraries and compiled modules: all that the probe was seen to use
    modules/DRIVER/... the modules of KVM in the order they load

Run as root with the appliance's script beside it, and the probe's package `kvm` too.
"""

from __future__ import annotations

import io
import json
import py_compile
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DRIVERS = ("kvm_intel", "kvm_amd")

# Imports and runs what the appliance will, then tells which files this interpreter holds: modules, and what is mapped into memory.
_USED = """
import sys; sys.path.insert(0, sys.argv[1])
import appliance, kvm.__main__, json, encodings.utf_8, encodings.ascii, encodings.latin_1
json.dumps(kvm.__main__.probe("/dev/null", 5))
mapped = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}
modules = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
print(json.dumps({"executable": sys.executable, "mapped": sorted(mapped), "modules": sorted(modules)}))
"""


def used() -> tuple[Path, list[Path], list[Path]]:
    """This interpreter, the files that it maps into memory for the appliance's work, and the modules that it imports."""
    words = [sys.executable, "-SE", "-c", _USED, str(HERE)]
    told = json.loads(subprocess.run(words, env={}, stdout=subprocess.PIPE, check=True).stdout)
    return Path(told["executable"]).resolve(), [Path(name) for name in told["mapped"]], [Path(name) for name in told["modules"]]


def compiled(source: Path) -> bytes:
    """A module's byte code that is used without a look at its source, whose date an archive need not keep."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "module.pyc")
        py_compile.compile(str(source), str(target), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        return target.read_bytes()


def links_to(library: Path) -> list[Path]:
    """The names beside a library that lead to it: programs ask for libz.so.1 and not for libz.so.1.3.1."""
    return [path for path in library.parent.glob("lib*.so*") if path.is_symlink() and path.resolve() == library]


def load_order(driver: str) -> list[Path]:
    """A driver's module file, after those that it needs."""
    shown = subprocess.run(["modprobe", "--show-depends", driver], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Path(words[1]) for words in map(str.split, shown.splitlines()) if words[0] == "insmod"]


def main() -> None:
    """Write the tar."""
    interpreter, mapped, modules = used()
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:

        def add(name: str, content: bytes, mode: int = 0o644) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))

        for path in mapped:
            if path == interpreter:
                add("python/usr/bin/python3", path.read_bytes(), 0o755)
            elif path.name.startswith("ld-linux"):
                # Where every program of this architecture names it (System V ABI, AMD64 supplement, "program interpreter").
                add("python/lib64/ld-linux-x86-64.so.2", path.read_bytes(), 0o755)
            elif path.is_file():
                add(f"python{path}", path.read_bytes(), 0o755)
                for link in links_to(path):
                    member = tarfile.TarInfo(f"python{link}")
                    member.type, member.linkname = tarfile.SYMTYPE, path.name
                    tar.addfile(member)
        for path in modules:
            if path.suffix == ".py" and HERE not in path.parents:
                add(f"python{path}c", compiled(path))
        for path in sorted(HERE.glob("kvm/*.py")):
            add(f"python/kvm/{path.name}c", compiled(path))
        for driver in DRIVERS:
            for number, path in enumerate(load_order(driver)):
                add(f"modules/{driver}/{number:02}-{path.name}", path.read_bytes())


if __name__ == "__main__":
    main()
