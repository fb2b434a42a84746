"""Matchers, and the file of routes: what it may say, and how each fault is told."""

import pathlib

import pytest
from tests.alerts.scenes import condition

from forestay.alerts.model import Severity
from forestay.alerts.receivers import ReceiverKind
from forestay.alerts.rules import BROUGHT, matches, read_matcher
from forestay.alerts.rules_file import check_extras, faults_of, load_routing, read_routing, unused
from forestay.errors import UsageError

GOOD = """
receivers:
  - {name: phone, kind: webhook, url: "http://127.0.0.1:8099/hook"}
  - {name: chat, kind: apprise, url_file: chat.url, send_resolved: false}
  - {name: prometheus, kind: alertmanager, url: "http://alertmanager.example:9093"}
routes:
  - name: media
    match: ["owner=media", "severity=page"]
    to: [phone]
    group_by: [owner, subject]
    escalate:
      - {after: 10m, to: [chat]}
  - name: default
    to: [prometheus]
    repeat: 12h
inhibit:
  - {by: ["name=pool_lost"], over: ["name=queue_age"]}
resolve_after: 2m
"""
PHONE = 'receivers: [{name: phone, kind: webhook, url: "http://127.0.0.1:8099/"}]\n'


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("subject=model:acme/*", True),
        ("subject=model:acme/c?t", False),
        ("subject=model:*[a-z]*", False),
        ("severity=page", True),
        ("severity!=page", False),
        ("owner!=media", True),
        ("pool=", False),
    ],
)
def test_a_matcher_knows_stars_and_nothing_else(text: str, fits: bool) -> None:
    """Other signs of patterns stand for themselves."""
    if text.endswith("="):
        with pytest.raises(UsageError, match="pattern must be one line"):
            read_matcher(text)
        return
    assert matches([read_matcher(text)], condition(severity=Severity.PAGE)) is fits


@pytest.mark.parametrize("text", ["", "subject", "=x", "a b=c", "a=" + "x" * 201, "a=x\ny"])
def test_what_is_no_matcher_is_refused(text: str) -> None:
    """With what was expected."""
    with pytest.raises(UsageError):
        read_matcher(text)


def test_a_good_file_is_read_whole(tmp_path: pathlib.Path) -> None:
    """Addresses come from files of their own, times from words."""
    (tmp_path / "chat.url").write_text("slack://secret/token\n")
    (tmp_path / "routes.yaml").write_text(GOOD)
    routing = load_routing(str(tmp_path / "routes.yaml"))
    kinds = [ReceiverKind.WEBHOOK, ReceiverKind.APPRISE, ReceiverKind.ALERTMANAGER]
    assert [item.kind for item in routing.receivers] == kinds
    assert routing.rules.resolve_after_seconds == 120.0
    assert routing.rules.quiet_receivers == {"chat"}
    media, default = routing.rules.routes
    assert media.escalate[0].after_seconds == 600.0
    assert default.repeat_seconds == 12 * 3_600.0
    assert len(routing.rules.inhibitions) == len(BROUGHT) + 1
    assert unused(routing) == []
    assert "secret" not in repr(routing) + str(routing.shown())


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("receivers: [}", 1, "not YAML"),
        (PHONE, 1, "Object missing required field `routes`"),
        (PHONE + "routes:\n  - {name: a, to: [nobody]}", 3, "no receiver 'nobody'; there are phone"),
        (PHONE + "routes:\n  - {name: a, to: [phone], match: [owner]}", 3, "is none; write field=pattern"),
        (PHONE + 'routes:\n  - {name: a, to: [phone], match: ["a=b"]}', 3, "the last route must be without `match`"),
        (PHONE + "routes:\n  - {name: a, to: [phone], repeat: soon}", 3, "'soon' is not a time from 1s"),
        (PHONE + "routes:\n  - {name: a, to: [phone], speed: 3}", 3, "unknown field `speed`"),
        (PHONE + "routes:\n  - {name: a, to: [phone]}\n  - {name: a, to: [phone]}", 4, "'a' is written 2 times"),
        (PHONE + "routes:\n  - {name: A b, to: [phone]}", 3, "use lower-case letters"),
        (PHONE + "routes:\n  - {name: a, to: []}", 3, "name at least one receiver"),
        ("receivers:\n  - {name: p, kind: webhook}\nroutes:\n  - {name: a, to: [p]}", 2, "either `url` or `url_file`"),
        (
            'receivers:\n  - {name: p, kind: webhook, url: "ftp://x/"}\nroutes:\n  - {name: a, to: [p]}',
            2,
            "not http or https",
        ),
        (
            "receivers:\n  - {name: p, kind: pigeon, url: x}\nroutes:\n  - {name: a, to: [p]}",
            2,
            "Invalid enum value 'pigeon'",
        ),
        (
            "receivers:\n  - {name: p, kind: webhook, url_file: none.url}\nroutes:\n  - {name: a, to: [p]}",
            2,
            "none.url cannot be read",
        ),
        (
            PHONE
            + "routes:\n  - {name: a, to: [phone], escalate: [{after: 2m, to: [phone]}, {after: 1m, to: [phone]}]}",
            3,
            "each step must come later",
        ),
        (PHONE + "routes: [{name: a, to: [phone]}]\ninhibit:\n  - {by: [], over: [a=b]}", 4, "would match every alert"),
    ],
)
def test_each_fault_of_a_file_is_told_with_its_line(text: str, line: int, said: str, tmp_path: pathlib.Path) -> None:
    """What is wrong, where, and what was expected; never the address."""
    with pytest.raises(UsageError) as caught:
        read_routing(text, "routes.yaml", tmp_path)
    faults = faults_of(caught.value)
    assert any(fault.startswith(f"routes.yaml:{line}: ") and said in fault for fault in faults), faults


def test_a_file_that_is_not_there_is_told_by_the_settings_name() -> None:
    """The variable is what the operator mends."""
    with pytest.raises(UsageError, match=r"FORESTAY_ALERT_ROUTES: /nowhere/routes\.yaml cannot be read"):
        load_routing("/nowhere/routes.yaml")


def test_a_receiver_of_apprise_needs_its_package(tmp_path: pathlib.Path) -> None:
    """Told at start, not when the first page is lost."""
    (tmp_path / "chat.url").write_text("slack://secret/token\n")
    routing = read_routing(GOOD, "routes.yaml", tmp_path)
    check_extras(routing, lambda: True)
    with pytest.raises(UsageError, match=r"receiver chat is of kind apprise.*forestay\[notify\]"):
        check_extras(routing, lambda: False)
