"""What the engine's probes find: the form of their records, and what these amount to. Whoever judges needs no machine for it.

The probes themselves run on machines (`vmlab.host.kvm`). What is here both wings import, and labs as ``vmlab.lab.kvm``.

kvm_record   a record of the KVM probe: its schema, and how one is read that may come from anywhere
kvm          what nested and shadow paging give, operation by operation, and the verdict from a record
"""
