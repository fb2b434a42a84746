"""No URL that a stranger may write leads the fetcher anywhere but to public web servers."""

import asyncio
import collections

import pytest
from tests.ingress.playing import PROXIES, fault_of
from tests.ingress.ssrf import Case, corpus
from tests.ingress.web import Canary, listening_canary

AT_A_TIME = 24


@pytest.mark.threat("API7:2023", "AML.T0049")
async def test_every_trick_of_the_corpus_is_refused_and_the_canary_hears_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Notations, tunnels, resolvers that lie or change their mind, redirects, parsers, schemes, ports, odd answers."""
    failures: dict[str, str] = {}
    gate = asyncio.Semaphore(AT_A_TIME)

    async def run(case: Case, canary: Canary) -> None:
        async with gate:
            if fault := await fault_of(case, canary):
                failures[case.name] = fault

    with listening_canary() as canary:
        for variable in PROXIES:
            monkeypatch.setenv(variable, f"http://127.0.0.1:{canary.port}")
        async with asyncio.TaskGroup() as group:
            for case in corpus():
                group.create_task(run(case, canary))
        assert (failures, canary.packets()) == ({}, 0)


def test_the_corpus_is_as_large_as_it_claims_and_says_each_trick_once() -> None:
    """Three hundred is what was promised; two cases of one name would hide one of them."""
    names = collections.Counter(case.name for case in corpus())
    assert len(names) >= 300
    assert [name for name, count in names.items() if count > 1] == []


async def test_the_canary_hears_whoever_is_not_guarded() -> None:
    """The silence of the canary means something: an unguarded connection is counted."""
    with listening_canary() as canary:
        _, writer = await asyncio.open_connection("127.0.0.1", canary.port)
        writer.close()
        await writer.wait_closed()
        assert canary.packets() == 1
