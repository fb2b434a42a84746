"""What an attacker of the platform would write: plain HTTP from any address of loopback, run as its own process.

It knows the platform by its address and by what it was given (a stolen key, a request id overheard). It reports what
came back and judges nothing; `siege` starts it for each attack, and decides whether the platform held.

    python -m forestay.demo.attacker ATTACK < plan.json
"""

import concurrent.futures
import hashlib
import http.client
import itertools
import json
import sys
import time  # noqa: TID251 - somebody else's program, outside the platform: it paces itself by its own clock
from collections.abc import Callable, Mapping
from typing import Any

ANSWER_SECONDS = 40.0
KEPT_CHARACTERS = 700  # of an answer's body
_HEADERS = ("retry-after", "ratelimit", "ratelimit-policy", "x-fal-error-type")

Report = dict[str, Any]


def say(**event: Any) -> None:
    """Tell whoever started this one thing."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class Line:
    """One connection to the platform, from one source address, opened again when it breaks."""

    def __init__(self, plan: Mapping[str, Any], source: str = "127.0.0.1") -> None:
        self._address = (str(plan["host"]), int(plan["port"]))
        self._source = source
        self._connection: http.client.HTTPConnection | None = None

    def call(self, request: Mapping[str, Any]) -> Report:
        """Make one call: method, path, key, body. Status 0 stands for no answer."""
        try:
            return self._call(request)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return {"status": 0, "body": f"{type(error).__name__}: {error}", "headers": {}}

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, request: Mapping[str, Any]) -> Report:
        if self._connection is None:
            host, port = self._address
            self._connection = http.client.HTTPConnection(
                host, port, timeout=ANSWER_SECONDS, source_address=(self._source, 0)
            )
        headers = {"Content-Type": "application/json"}
        if request.get("key"):
            headers["Authorization"] = f"Key {request['key']}"
        body = json.dumps(request["body"]) if "body" in request else None
        self._connection.request(str(request.get("method", "POST")), str(request["path"]), body, headers)
        answer = self._connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        kept = {name: value for name in _HEADERS if (value := answer.headers.get(name)) is not None}
        return {"status": answer.status, "body": text[:KEPT_CHARACTERS], "headers": kept}


def calls(plan: Mapping[str, Any]) -> Report:
    """Make the listed calls, one after another, each from its own source address."""
    answers: list[Report] = []
    for request in plan["requests"]:
        time.sleep(float(plan.get("pause", 0.0)) if answers else 0.0)
        line = Line(plan, str(request.get("source", "127.0.0.1")))
        answers.append(line.call(request))
        line.close()
    return {"answers": answers}


def knock(plan: Mapping[str, Any]) -> Report:
    """Make one call over and over until it is refused, and say when it first went through."""
    line, request = Line(plan), plan["request"]
    deadline = time.monotonic() + float(plan["seconds"])
    through = 0
    answer: Report = {}
    while time.monotonic() < deadline:
        answer = line.call(request)
        if answer["status"] not in {200, 201, 202}:
            break
        through += 1
        if through == 1:
            say(event="in")
        time.sleep(float(plan["pause"]))
    line.close()
    return {"through": through, "answer": answer}


def flood(plan: Mapping[str, Any]) -> Report:
    """Make `count` calls at up to `rate` a second over several connections; count what came back by status."""
    start = time.monotonic()
    rate, count, lines = float(plan["rate"]), int(plan["count"]), int(plan["connections"])

    def stream(first: int) -> list[Report]:
        line, answers = Line(plan), list[Report]()
        for number in range(first, count, lines):
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            answers.append(line.call(plan["request"]))
        line.close()
        return answers

    with concurrent.futures.ThreadPoolExecutor(lines) as pool:
        answers = list(itertools.chain.from_iterable(pool.map(stream, range(lines))))
    report = tally(answers)
    return {**report, "seconds": round(time.monotonic() - start, 2)}


def guess(plan: Mapping[str, Any]) -> Report:
    """Try `count` secrets for a key whose id is known."""
    line, answers = Line(plan, str(plan["source"])), list[Report]()
    for number in range(int(plan["count"])):
        secret = hashlib.sha256(str(number).encode()).hexdigest()
        answers.append(line.call({**plan["request"], "key": f"{plan['key_id']}:{secret}"}))
    line.close()
    return tally(answers)


def tally(answers: list[Report]) -> Report:
    """Count answers by status, and keep the first of each."""
    statuses: dict[str, int] = {}
    samples: dict[str, Report] = {}
    for answer in answers:
        status = str(answer["status"])
        statuses[status] = statuses.get(status, 0) + 1
        samples.setdefault(status, answer)
    return {"statuses": statuses, "samples": samples}


ATTACKS: Mapping[str, Callable[[Mapping[str, Any]], Report]] = {
    "calls": calls,
    "knock": knock,
    "flood": flood,
    "guess": guess,
}


def main() -> int:
    """Run one attack with the plan from standard input, which keeps stolen keys off the command line."""
    plan: Mapping[str, Any] = json.loads(sys.stdin.readline())
    say(event="report", report=ATTACKS[sys.argv[1]](plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
