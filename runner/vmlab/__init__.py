"""vmlab: labs that make an operating-systems course measurable.

A lab's author needs `vmlab.lab` and `vmlab.bench`; all else is the engine. From the top of the house down, imports point down only:

cli/       the commands, and what a person sees of them
many/      many labs at once: which runs next, where, and how they get on
run/       one lab, from its definition to its report
bench/     what an experiment may touch
guest/     starting a guest, talking to it, looking at it from outside       report/    the document and its renderings
image/     disks to boot from: catalogue, store, builder                     lab/       definition, checks, evidence, verdicts
host/      what this machine is and can, its slots, the KVM probe
process    the one gateway to other programs; lease, paths, packages, deadline, yamlfile, errors: what all rest on
"""

__version__ = "0.1.0"
