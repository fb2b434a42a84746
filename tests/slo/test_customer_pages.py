"""A customer's report as a page: what a person reads, in Markdown, HTML and JSON."""

import dataclasses
import html.parser
import json

import msgspec
from tests.slo.customers import DAY, MONTH, Answer, facts_of

from forestay.slo.budget import Adjustment
from forestay.slo.customer_pages import plot_days, render_html, render_json, render_markdown
from forestay.slo.customer_report import CustomerReport, SampleLine, report_of
from forestay.slo.model import Minute, SloId

ANSWERS = [
    *[Answer(10, "acme/cat", "good", 2.0)] * 995,
    *[Answer(2 * DAY, "acme/cat", "bad", 1.0)] * 5,
    *[Answer(20, "acme/cat", "caller", 1.0)] * 7,
    *[Answer(20, "acme/cat", "cancelled", 1.0)] * 2,
]


class _Tags(html.parser.HTMLParser):
    """Collects what a page would load and which elements it opens and leaves open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.seen: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.seen.add(tag)
        self.loads += [name for name, _ in attrs if name in {"src", "href"}]
        if tag not in {"meta", "line", "rect", "circle"}:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        if tag in self.opened:
            assert self.opened.pop() == tag


def report(name: str = "Gold & Sons", reason: str = "drill") -> CustomerReport:
    """A finished month with faults on its third day; five minutes without requests were taken out."""
    taken = Adjustment(SloId("gold-up"), Minute(MONTH.first), Minute(MONTH.first + 5), "human:ada", reason, Minute(0))
    facts = facts_of(ANSWERS, [taken])
    return report_of(dataclasses.replace(facts, tenant=dataclasses.replace(facts.tenant, name=name)))


def test_a_sample_is_told_as_an_estimate_with_its_interval_and_its_absence_as_not_known() -> None:
    """In every form; a count of verdicts is something else and has no part in it."""
    unknown = "None was looked at again: how many should not have gone out is not known."
    assert unknown in render_markdown(report())
    assert unknown in render_html(report())
    assert json.loads(render_json(report()))["sample"] is None
    sampled = dataclasses.replace(report(), sample=SampleLine(120, 1, 1 / 120, 0.00147, 0.0457))
    assert "| 120 | 1 | 0.833 % | 0.147 % and 4.57 % |" in render_markdown(sampled)
    assert "<td>0.833 %</td><td>0.147 % and 4.57 %</td>" in render_html(sampled)
    assert json.loads(render_json(sampled))["sample"]["looked_at"] == 120


def test_markdown_tells_the_month_in_order() -> None:
    """Availability, credit and its table first, then models, budgets, bands, what failed, what is not counted, days."""
    text = render_markdown(report())
    told = [
        "# Service report for Gold &amp; Sons, 2026-11",
        "From 2026-11-01 00:00 to 2026-12-01 00:00 UTC",
        "The month is complete.",
        "Availability: 99.5 % (5 of 1,000 requests failed by a fault of ours).",
        "Credit: 10 % of the month's fee, by the default table.",
        "| acme/cat | 99.5 % | 995 | 5 | 2.02 s | 2.02 s | 2.02 s |",
        "| gold-up | 99 % availability | 5 of 1,000 | 50 % | 50 % |",
        "| below 99.9 % | 10 % |",
        "| model | 5 | 0.5 % | the model answered with an error, crashed, or took too long |",
        "| caller errors | 7 | 0.694 % |",
        "| cancelled | 2 | 0.198 % |",
        "| drill (by human:ada) |",
        "| 2026-11-02 | no requests | 0 | 0 |",
        "| 2026-11-03 | 0 % | 0 | 5 |",
    ]
    places = [text.find(line) for line in told]
    assert -1 not in places, told[places.index(-1)]
    assert places == sorted(places)


def test_html_is_whole_loads_nothing_and_draws_a_bar_for_each_day_with_requests() -> None:
    """One file for a browser and a printer."""
    page = render_html(report())
    tags = _Tags()
    tags.feed(page)
    assert (tags.opened, tags.loads, "script" in tags.seen) == ([], [], False)
    assert "@media print" in page
    assert page.count("<rect") == 2
    assert page.count("<circle") == 28  # days without requests are neither good nor bad
    assert "<title>2026-11-03: 0 %</title>" in page


def test_names_and_reasons_are_escaped() -> None:
    """Whoever names a tenant or gives a reason writes no markup into what a customer opens."""
    evil = '<script>alert("1")</script>|`x`'
    page = render_html(report(evil, evil))
    assert "<script" not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)" in page
    text = render_markdown(report(evil, evil))
    assert "<script" not in text
    assert "\\|\\`x\\`" in text


def test_json_reads_back_as_the_same_report() -> None:
    """Shares and seconds as numbers, times in UTC."""
    made = report()
    text = render_json(made)
    assert msgspec.json.decode(text, type=CustomerReport) == made
    assert json.loads(text)["availability"] == {"good": 995, "bad": 5, "ratio": 0.995}


def test_a_month_that_is_not_over_says_so_on_every_page() -> None:
    """And its credit is one so far."""
    made = report_of(facts_of(ANSWERS, seen_minutes=3 * DAY))
    for text in (render_markdown(made), render_html(made)):
        assert "Provisional: the month is not over." in text
        assert "fee so far" in text
        assert "2026-11-04" not in text.replace("2026-11-04 00:00", "").replace("2026-11-04: not counted yet", "")


def test_a_share_below_all_is_never_shown_as_all() -> None:
    """One failure of a million stays visible."""
    many = [Answer(10, "acme/cat", "bad", 1.0)]
    facts = facts_of(many)
    [(minute, counts)] = facts.minutes.items()
    made = report_of(dataclasses.replace(facts, minutes={minute: dataclasses.replace(counts, good=9_999_999)}))
    assert "Availability: 99.999 % (1 of 10,000,000" in render_markdown(made)
    assert "from 99.9 to 100 percent" in plot_days(made.days)
