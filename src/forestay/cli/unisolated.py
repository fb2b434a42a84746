"""What `forestay up` and `forestay demo` say, and the demo does, where this machine cannot isolate models.

It decides that the demo waives isolation for itself, since its models are those that its user asked to see, and that
`up` waives nothing: its models are then refused, and this tells why before anyone waits for them.
"""

from collections.abc import Mapping

WAIVER = "FORESTAY_ALLOW_UNISOLATED"


def shortfall_here() -> str:
    """Return what this machine cannot keep a model from; empty when nothing has to be waived. Blocks."""
    from forestay.worker.hosts.confinement import probe_machine, shortfall

    return shortfall(probe_machine())


def warning_of_up(shortfall: str, *, waived: bool) -> str:
    """Return the line for the operator; empty when there is nothing to tell."""
    if not shortfall:
        return ""
    if waived:
        return f"not isolated: {shortfall}; {WAIVER} waives it, so run no model here that you do not trust"
    return f"models will be refused unless their spec says host.network: full: {shortfall}; {WAIVER}=true waives it"


def waiver_of_demo(shortfall: str, environment: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the variables that the demo sets for its platform, and the line that tells of them.

    What the user has set stays as it is.
    """
    if WAIVER in environment:
        return {WAIVER: environment[WAIVER]}, ""
    if not shortfall:
        return {}, ""
    return {WAIVER: "true"}, f"not isolated: {shortfall}; the demo waives it for its own models ({WAIVER}=true)"
