"""`forestay limit`, through HTTP to a real database and back."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.cli.conftest import Platform, Ran

from forestay.clock import SystemClock
from forestay.ids import KeyId, ModelId, TenantId
from forestay.limits.counters import month_of
from forestay.limits.store import UsageRow

Forestay = Callable[..., Awaitable[Ran]]


async def read(forestay: Forestay, *words: str) -> Any:
    """Return what a command prints as JSON."""
    return json.loads((await forestay(*words, "--json")).out)


async def test_limits_are_set_shown_listed_and_removed(forestay: Forestay, platform: Platform) -> None:
    """Kinds that are not named stay; money is currency units outside; each change has its audit row."""
    words = "--requests-per-second 20 --burst 40 --in-flight 10 --gpu-seconds-per-minute 600"
    words += " --gpu-seconds-per-month 100000 --money-per-month 500"
    done = await forestay("limit", "set", "tenant:acme", *words.split(), "--reason", "contract 7")
    assert done.status == 0, done.err
    assert (await forestay("limit", "set", "tenant:acme", "--in-flight", "3")).status == 0
    assert (await forestay("limit", "set", "tenant:*", "--gpu-seconds-per-minute", "60")).status == 0
    shown = {item["kind"]: item for item in (await read(forestay, "limit", "show", "tenant:acme"))}
    assert shown["in_flight"] == {"subject": "tenant:acme", "kind": "in_flight", "amount": 3}
    assert shown["requests_per_second"]["burst"] == 40
    assert shown["money_per_month"]["amount"] == 500
    assert shown["gpu_seconds_per_minute"]["subject"] == "tenant:acme"
    rows = await platform.database.fetch("SELECT amount FROM limit_rules WHERE kind = 'money_per_month'")
    assert [row["amount"] for row in rows] == [50_000]
    listed = (await forestay("limit", "list")).out
    assert "tenant:*" in listed
    removed = await forestay("limit", "remove", "tenant:acme", "--kind", "in-flight", "--kind", "money-per-month")
    assert "in_flight, money_per_month" in removed.out
    assert (await read(forestay, "limit", "remove", "tenant:acme"))["removed"] == [
        "requests_per_second",
        "gpu_seconds_per_minute",
        "gpu_seconds_per_month",
    ]
    fallen = await read(forestay, "limit", "show", "tenant:acme")
    assert [(item["subject"], item["amount"]) for item in fallen] == [("tenant:*", 60)]
    audit = await platform.database.fetch("SELECT action, reason FROM audit_log WHERE subject = 'limit:tenant:acme'")
    assert [row["action"] for row in audit] == ["set_limit", "set_limit", "remove_limit", "remove_limit"]
    assert audit[0]["reason"] == "contract 7"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("set tenant:acme", "limit: name at least one"),
        ("set acme --in-flight 3", "'acme' is none of tenant:acme"),
        ("set tenant:nobody --in-flight 3", "no tenant 'nobody'"),
        ("set model:acme/nothing --in-flight 3", "no model 'acme/nothing'"),
        ("set key:1111111111111111 --in-flight 3", "no key '1111111111111111'"),
        ("set tenant:acme --burst 3 --in-flight 1", "set both together"),
        ("set tenant:acme --requests-per-second 0", "requests_per_second: must be above 0"),
        ("set tenant:acme --requests-per-second 1 --burst 0", "burst: must be a whole number"),
        ("remove tenant:acme", "tenant:acme has no such limit"),
        ("remove tenant:acme --kind speed", "'speed' is none of requests_per_second"),
        ("usage tenant:*", "name one subject"),
        ("usage tenant:acme --month soon", "must be a month such as 2030-01"),
        ("show nobody", "is none of tenant:acme"),
    ],
)
async def test_a_wrong_word_is_told_with_its_field_and_mend(forestay: Forestay, words: str, told: str) -> None:
    """No traceback, no 500; with --json as one object."""
    failed = await forestay("limit", *words.split(), "--json")
    assert failed.status in {1, 2}
    assert told.replace("body.", "") in failed.err.replace("body.", "")
    assert json.loads(failed.out)["error"]["message"]


async def test_usage_shows_what_is_spent_a_model_at_a_time_and_what_is_left(
    forestay: Forestay, platform: Platform
) -> None:
    """Money in currency units; a month that is over has no limits to show."""
    month = month_of(SystemClock().now())
    rows = [
        UsageRow(month, TenantId("acme"), KeyId("k"), ModelId("acme/one"), 30.0, 150.0, 3),
        UsageRow(month, TenantId("acme"), KeyId("k"), ModelId("acme/two"), 10.0, 50.0, 1),
        UsageRow(month.replace(year=2020), TenantId("acme"), KeyId("k"), ModelId("acme/one"), 1.0, 1.0, 1),
    ]
    await platform.ports.limits.store.add_once(rows, source="g", sequence=1)
    limits = ["--gpu-seconds-per-month", "100", "--money-per-month", "5", "--in-flight", "2"]
    assert (await forestay("limit", "set", "tenant:acme", *limits)).status == 0
    seen = await read(forestay, "limit", "usage", "tenant:acme")
    assert seen["spent"] == {"gpu_seconds": 40.0, "money": 2.0, "requests": 4}
    assert [item["model_id"] for item in seen["by_model"]] == ["acme/one", "acme/two"]
    left = {item["kind"]: (item["spent"], item["reserved"], item["left"]) for item in seen["limits"]}
    assert left["gpu_seconds_per_month"] == (40, 0, 60)
    assert left["money_per_month"] == (2, 0, 3)
    table = (await forestay("limit", "usage", "tenant:acme")).out
    assert "4 requests, 40.0 device-seconds" in table
    old = await read(forestay, "limit", "usage", "tenant:acme", "--month", "2020-" + f"{month:%m}")
    assert (old["spent"]["requests"], old["limits"]) == (1, [])


async def test_a_key_without_the_admin_scope_may_not_look_at_limits(platform: Platform) -> None:
    """Neither read nor write."""
    from tests.cli.test_commands import call  # noqa: PLC0415 - one helper

    for method, path in (("GET", "/limits"), ("PUT", "/limits"), ("DELETE", "/limits"), ("GET", "/limits/usage")):
        status, _ = await call(platform, method, path, body=b"{}", key=platform.api_key)
        assert status == 403
