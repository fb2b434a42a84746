"""Playing the tricks of the corpus against the real fetcher; for the tests and the bench."""

from tests.ingress.ssrf import Case
from tests.ingress.web import Canary, filled, filled_page, scripted_web

from forestay.errors import ForestayError
from forestay.media.fetch import Fetcher, FetchLimits

LIMITS = FetchLimits(max_bytes=1024 * 1024, total_seconds=0.7, connect_seconds=0.5)
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


_NOT_PLAYED = "the trick was never played: its server was not asked"
_TRIES = 3  # on a busy machine the fetcher's time may be over before its server has heard of it


async def fault_of(case: Case, canary: Canary) -> str | None:
    """Run one case on a web of its own; return what went wrong with the guard, None when it held."""
    fault: str | None = _NOT_PLAYED
    for _ in range(_TRIES):
        if fault == _NOT_PLAYED:
            fault = await _played(case, canary)
    return fault


async def _played(case: Case, canary: Canary) -> str | None:
    async with scripted_web(canary) as web:
        web.pages = {path: filled_page(wanted, web) for path, wanted in case.pages.items()}
        fetcher = Fetcher(limits=LIMITS, network=web.network(case.answers))
        try:
            await fetcher.fetch(filled(case.url, web))
            fetched = True
        except ForestayError:
            fetched = False
        if case.pages and not web.seen:
            return _NOT_PLAYED
        if fetched != case.not_followed:
            return "it was fetched" if fetched else "the answer could not be had"
    return None
