"""Mutants of a lab's checks: what its controls would not notice if a check were written wrongly.

mutate  which mutants a file of checks has
run     the lab's tests, once for each mutant, in a process of its own

``python -m tests.mutants LAB`` (``make mutants LAB=``) shows every mutant that no test of the lab notices.
"""
