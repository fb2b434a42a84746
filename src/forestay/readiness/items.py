"""What is asked of a model: each item is a function from facts to a finding with evidence and the mend. Pure.

An item that cannot be known is inconclusive, and that keeps a model out as a failure does. Rates are judged by their
exact 95 % bounds (Clopper and Pearson 1934), so that ten requests without an error prove nothing. Bounds are ours.
"""

import re
from collections.abc import Callable

from forestay.diffs.noise import share_at_most
from forestay.fleet.spec import UNGUARDED
from forestay.fleet.spec_quality import QualityMode
from forestay.readiness.model import Answer, Area, Facts, Finding

MOST_ERRORS = 0.05  # of requests
MOST_BROKEN = 0.02  # of outputs
LEAST_MEASURED = 20  # requests, before a cost or a latency counts as measured
_PLACEHOLDERS = re.compile(r"\b(todo|fill|fill in|unknown|nobody|tbd)\b|example\.com")

Item = Callable[[Facts], Finding]


def check_start(facts: Facts) -> Finding:
    """Does it start?"""
    if facts.replicas_ready:
        return _finding("start", Area.RELIABILITY, Answer.PASS, f"{facts.replicas_ready} replicas are ready")
    mend = "deploy it, or look at `forestay model show` for why no replica starts"
    return _finding("start", Area.RELIABILITY, Answer.INCONCLUSIVE, "no replica is ready now", mend)


def check_objectives(facts: Facts) -> Finding:
    """Does anybody watch it, and is what it promises kept?"""
    if not facts.slos:
        mend = "name it in an SLO, see docs/howto/write-an-slo.md"
        return _finding("objectives", Area.RELIABILITY, Answer.FAIL, "no objective watches it", mend)
    if facts.slos_broken:
        told = f"burning: {', '.join(facts.slos_broken)}"
        return _finding("objectives", Area.RELIABILITY, Answer.FAIL, told, "mend what burns, or roll back")
    return _finding("objectives", Area.RELIABILITY, Answer.PASS, f"{len(facts.slos)} objectives, all kept")


def check_errors(facts: Facts) -> Finding:
    """Does it answer?"""
    counts = facts.measured.failed, facts.measured.requests
    return _rate("errors", Area.RELIABILITY, counts, MOST_ERRORS, "requests failed")


def check_files(facts: Facts) -> Finding:
    """Are its files what may be loaded?"""
    if facts.revision.bundle_key is None:
        return _finding("files", Area.SECURITY, Answer.PASS, "it has no files here")
    if facts.unsafe_files:
        told = f"can run code when loaded: {', '.join(facts.unsafe_files[:5])}"
        return _finding("files", Area.SECURITY, Answer.FAIL, told, "convert them to safetensors")
    if facts.signed_by is None:
        mend = "deploy it again: a deploy examines every file"
        return _finding("files", Area.SECURITY, Answer.INCONCLUSIVE, "never examined", mend)
    return _finding("files", Area.SECURITY, Answer.PASS, "examined, nothing that runs code when loaded")


def check_signature(facts: Facts) -> Finding:
    """Does anybody vouch for its files?"""
    if facts.revision.bundle_key is None:
        return _finding("signature", Area.SECURITY, Answer.PASS, "it has no files here")
    if facts.weights == 0 and facts.signed_by is not None:
        return _weightless(facts)
    if facts.signed_by:
        return _finding("signature", Area.SECURITY, Answer.PASS, f"signed by {', '.join(facts.signed_by)}")
    mend = "sign its weights, see docs/howto/sign-and-admit-a-model.md"
    return _finding("signature", Area.SECURITY, Answer.FAIL, "no trusted key has signed its files", mend)


def _weightless(facts: Facts) -> Finding:
    """No file of weights lies in the bundle: then what is mounted must be held to a digest."""
    loose = [mount.folder for mount in facts.revision.spec.artefacts.mounts if not mount.digest]
    if loose:
        told, mend = (
            f"no digest holds {', '.join(loose)}",
            "give artefacts.mounts its digest, see `forestay artefact digest`",
        )
        return _finding("signature", Area.SECURITY, Answer.FAIL, told, mend)
    return _finding("signature", Area.SECURITY, Answer.PASS, "its bundle holds no weights that a key could vouch for")


def check_policy(facts: Facts) -> Finding:
    """Is what it takes and makes judged?"""
    policy = facts.revision.spec.safety.policy
    if policy == UNGUARDED:
        return _finding(
            "policy", Area.SAFETY, Answer.FAIL, "nothing judges its content", "set safety.policy in its spec"
        )
    if not facts.policy_known:
        told = f"policy {policy!r} is not in force"
        return _finding("policy", Area.SAFETY, Answer.FAIL, told, "bring it in force with `forestay safety policy`")
    return _finding("policy", Area.SAFETY, Answer.PASS, f"judged by {policy!r}")


def check_licence(facts: Facts) -> Finding:
    """May it be served?"""
    licence = facts.revision.spec.licence
    if _is_placeholder(licence):
        return _finding("licence", Area.SAFETY, Answer.FAIL, f"licence is {licence!r}", "name it in the spec")
    return _finding("licence", Area.SAFETY, Answer.PASS, licence)


def check_output_checks(facts: Facts) -> Finding:
    """Are its outputs held against a contract?"""
    mode = facts.revision.spec.quality.mode
    if mode is QualityMode.ENFORCE:
        return _finding("output checks", Area.QUALITY, Answer.PASS, "broken outputs are no success")
    answer = Answer.INCONCLUSIVE if mode is QualityMode.OBSERVE else Answer.FAIL
    return _finding("output checks", Area.QUALITY, answer, f"quality.mode is {mode}", "set quality.mode: enforce")


def check_broken_outputs(facts: Facts) -> Finding:
    """Does it make whole outputs?"""
    counts = facts.measured.broken, facts.measured.requests
    return _rate("broken outputs", Area.QUALITY, counts, MOST_BROKEN, "outputs were broken")


def check_cost(facts: Facts) -> Finding:
    """Is it known what a request costs?"""
    said, measured = facts.revision.spec.capacity.gpu_seconds, facts.measured
    if measured.requests >= LEAST_MEASURED and measured.seconds_median is not None:
        told = f"median {measured.seconds_median:.2f} s, p95 {measured.seconds_p95 or 0.0:.2f} s of {measured.requests}"
        return _finding("cost", Area.CAPACITY, Answer.PASS, told)
    if said is not None:
        return _finding("cost", Area.CAPACITY, Answer.PASS, f"the owner says {said:g} device-seconds; not measured yet")
    told = f"{measured.requests} of {LEAST_MEASURED} requests measured"
    mend = "send some requests, or set capacity.gpu_seconds"
    return _finding("cost", Area.CAPACITY, Answer.INCONCLUSIVE, told, mend)


def check_time(facts: Facts) -> Finding:
    """Does it end well within its limit?"""
    limit, measured = facts.revision.spec.limits.request_timeout_seconds, facts.measured
    if measured.requests < LEAST_MEASURED or measured.seconds_p95 is None:
        told = f"{measured.requests} of {LEAST_MEASURED} requests measured"
        return _finding("time", Area.CAPACITY, Answer.INCONCLUSIVE, told, "send some requests")
    told = f"p95 {measured.seconds_p95:.2f} s of a limit of {limit:g} s"
    if measured.seconds_p95 > limit / 2:
        return _finding(
            "time", Area.CAPACITY, Answer.FAIL, told, "raise limits.request_timeout_seconds, or make it faster"
        )
    return _finding("time", Area.CAPACITY, Answer.PASS, told)


def check_room(facts: Facts) -> Finding:
    """Is there a worker that can hold it?"""
    asked = facts.revision.spec.resources
    if facts.workers_of_pool == 0:
        told = f"pool {asked.pool!r} has no worker"
        return _finding("room", Area.CAPACITY, Answer.FAIL, told, "add a worker, or change resources.pool")
    if asked.memory_mb > facts.memory_of_pool_mb:
        told = f"asks for {asked.memory_mb} MB; the largest worker has {facts.memory_of_pool_mb} MB"
        return _finding("room", Area.CAPACITY, Answer.FAIL, told, "lower resources.memory_mb, or add a larger worker")
    told = f"{facts.workers_of_pool} workers in pool {asked.pool!r}"
    return _finding("room", Area.CAPACITY, Answer.PASS, told)


def check_owner(facts: Facts) -> Finding:
    """Is there somebody to call?"""
    spec = facts.revision.spec
    told = f"{spec.owner_team}, {spec.owner_contact}, then {spec.owner_escalation}"
    named = {"team": spec.owner_team, "contact": spec.owner_contact, "escalation": spec.owner_escalation}
    open_ones = [f"owner.{name}" for name, text in named.items() if _is_placeholder(text)]
    if open_ones:
        told = f"not said, or a placeholder: {', '.join(open_ones)}"
        mend = "name in the spec a team, where it is reached, and who is called when it does not answer"
        return _finding("owner", Area.OPERABILITY, Answer.FAIL, told, mend)
    return _finding("owner", Area.OPERABILITY, Answer.PASS, told)


def check_intended_use(facts: Facts) -> Finding:
    """Is it said what it is for, and what may go wrong?"""
    spec = facts.revision.spec
    if _is_placeholder(spec.intended_use):
        told = f"intended_use is {spec.intended_use[:60]!r}"
        return _finding(
            "intended use", Area.SAFETY, Answer.FAIL, told, "say in the spec who is to use it, and for what"
        )
    told = f"said, with {len(spec.risks)} risks" if spec.risks else "said; no risk is named"
    return _finding("intended use", Area.SAFETY, Answer.PASS, told)


def check_interface(facts: Facts) -> Finding:
    """Do callers know what to send?"""
    if facts.revision.openapi is None:
        mend = "serve /openapi.json, or deploy with a schema"
        return _finding("interface", Area.OPERABILITY, Answer.FAIL, "it declares none", mend)
    return _finding("interface", Area.OPERABILITY, Answer.PASS, "declared")


ITEMS: tuple[Item, ...] = (
    check_start,
    check_objectives,
    check_errors,
    check_files,
    check_signature,
    check_policy,
    check_licence,
    check_intended_use,
    check_output_checks,
    check_broken_outputs,
    check_cost,
    check_time,
    check_room,
    check_owner,
    check_interface,
)


def _rate(item: str, area: Area, counts: tuple[int, int], most: float, what: str) -> Finding:
    """Judge a share by its bounds: all of them below the limit passes, all above fails, else nobody knows."""
    bad, of = counts
    if of == 0:
        return _finding(item, area, Answer.INCONCLUSIVE, "no request has ended yet", "send some requests")
    at_most, at_least = share_at_most(bad, of), 1.0 - share_at_most(of - bad, of)
    told = f"{bad} of {of} {what}: {at_least:.1%} to {at_most:.1%}, {most:.0%} is the most"
    if at_most <= most:
        return _finding(item, area, Answer.PASS, told)
    if at_least > most:
        return _finding(item, area, Answer.FAIL, told, "look at `forestay request list` for what went wrong")
    return _finding(item, area, Answer.INCONCLUSIVE, told, "send more requests")


def _is_placeholder(text: str) -> bool:
    low = text.strip().lower()
    return not low or _PLACEHOLDERS.search(low) is not None


def _finding(item: str, area: Area, answer: Answer, evidence: str, mend: str = "") -> Finding:
    return Finding(item, area, answer, evidence, mend)
