"""vmlab: labs that make an operating-systems course measurable.

A lab's author needs `vmlab.lab` and `vmlab.bench`; all else is the engine. From the top of the house down, imports point down only:

__main__       `python -m vmlab`
cli/           the commands, and what a person sees of them
pytest_plugin  labs as tests: one test item a check
many/          many labs at once: which runs next, where, and how they get on
run/           one lab, from its definition to its report
bench/         what an experiment may touch
guest/         starting a guest, talking to it, looking at it         report/  the document and its renderings
image/         disks to boot from: catalogue, store, builder          lab/     definition, checks, evidence, verdicts
host/          what this machine is and can, its slots, the KVM probe
process        the one gateway to other programs
packages       which program comes from which package
paths          data that ships with vmlab, and the user's directories
yamlfile       files that people write, read with an answer to every mistake
output         the standard streams, which may be closed, full, or of a poor encoding
suggest        the nearest known word to a misspelt one
lease          who uses a thing, told by the kernel
progress       what goes on, as a stream of events
deadline       a point in time that is passed along
errors         what a person is told, with a hint and an exit code

Left are the machines, right is the evidence. Neither wing imports anything of the other, so that whoever grades needs no QEMU; they meet in
the bench, and what stands above it uses both. (`tests/unit/test_imports.py` reads this table and holds it.)
"""

__version__ = "0.1.0"
