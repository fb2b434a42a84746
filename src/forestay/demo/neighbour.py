"""A well-behaved tenant's program: one request at a time, at a steady pace, until its standard input ends.

It waits for no answer; what became of each request, and how long it waited, is read from the platform's own facts. Run
as its own process by `siege`; plain HTTP, no part of the platform.

    python -m forestay.demo.neighbour < plan.json
"""

import http.client
import json
import select
import sys
import time  # noqa: TID251 - a user's own program, outside the platform: it paces itself by its own clock
from typing import Any

ANSWER_SECONDS = 20.0


def say(**event: Any) -> None:
    """Tell whoever started this one thing."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def submit(connection: http.client.HTTPConnection, plan: dict[str, Any]) -> str:
    """Submit one request and return its id; anything but an acknowledgement is an error in words."""
    headers = {"Authorization": f"Key {plan['key']}", "Content-Type": "application/json"}
    connection.request("POST", str(plan["path"]), json.dumps(plan["body"]), headers)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise http.client.HTTPException(f"{answer.status}: {said[:200].decode('utf-8', 'replace')}")
    return str(json.loads(said)["request_id"])


def main() -> int:
    """Submit at the plan's pace; a call that fails is told and not tried again."""
    plan: dict[str, Any] = json.loads(sys.stdin.readline())
    connection = http.client.HTTPConnection(str(plan["host"]), int(plan["port"]), timeout=ANSWER_SECONDS)
    start, number = time.monotonic(), 0
    while True:
        pause = start + number * float(plan["every_seconds"]) - time.monotonic()
        if select.select([sys.stdin], [], [], max(0.0, pause))[0]:
            break
        number += 1
        try:
            say(event="submitted", request_id=submit(connection, plan))
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            say(event="failed", why=f"{type(error).__name__}: {error}"[:300])
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
