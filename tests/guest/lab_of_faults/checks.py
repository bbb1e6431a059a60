"""What the runner's own tests want to know of any image."""

from vmlab.lab import Evidence, Verdict, check, failed, passed


@check(points=1, claim="X1")
def it_said_hello(evidence: Evidence) -> Verdict:
    """The guest said hello."""
    return passed("It did.", measured=evidence["hello"].text("hello"))


@check(points=1, claim="X1")
def cloud_init_accepts_the_seed(evidence: Evidence) -> Verdict:
    """The user-data is valid by the schema of the guest's own cloud-init."""
    schema = evidence["schema"]
    if schema.integer("status") == 0:
        return passed("It is.", measured=schema.text("said"))
    return failed(schema.text("said"))
