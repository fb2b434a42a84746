"""Signals: what each sees, what it must not see, and that its memory is bounded."""

import random  # noqa: TID251 - a seeded source for made-up prompts

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.abuse.callers import AWAY, DAY, HASHER, HOME, HOUR, call_of, key_signal, settled, tenant_signal

from forestay.abuse import clusters, guessing, habits
from forestay.abuse.calls import Call, wide_network
from forestay.abuse.signals import Signals, shown
from forestay.abuse.snapshot import SHARDS, Meta, parts_of, restore
from forestay.abuse.vocabulary import SIGNALS, Per

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


def made_up(source: random.Random, words: int = 10) -> str:
    """A prompt of words that nobody wrote."""
    return " ".join("".join(source.choices(LETTERS, k=source.randint(4, 9))) for _ in range(words))


# A key in the hands of somebody else --------------------------------------------------------------------------------
def test_a_thief_differs_in_who_and_in_what() -> None:
    """A far network, another client and a model that the key never called: found after a few calls."""
    signals = settled()
    for step in range(5):
        signals.observe(call_of(12 * DAY + step * 60.0, "x", network=AWAY, agent="bb", model="acme/dear", seconds=30.0))
    assert key_signal(signals, "stranger.score", 12 * DAY + 300) >= 7
    assert key_signal(signals, "stranger.calls", 12 * DAY + 300) == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"network": AWAY},
        {"agent": "bb"},
        {"model": "acme/dear", "seconds": 30.0},
        {"network": AWAY, "agent": "bb"},
        {"network": "203.0.200.0/24", "agent": "bb"},
    ],
    ids=["travelling", "a new client", "a new project", "a new colleague", "a new client at home"],
)
def test_an_honest_change_is_no_thief(fields: dict[str, object]) -> None:
    """Travelling, a new machine, a new project, a colleague at home: each is below suspicion, however often."""
    signals = settled()
    for step in range(40):
        text = f"a lighthouse in a storm number {step % 5}"
        signals.observe(call_of(12 * DAY + 9 * HOUR + step * 90.0, text, **fields))
    assert key_signal(signals, "stranger.score", 12 * DAY + 10 * HOUR) < 7


def test_a_young_key_has_no_habits_to_differ_from() -> None:
    """Nothing is said before there is something to compare with."""
    signals = settled(days=2)
    for step in range(9):
        signals.observe(call_of(2 * DAY + step, "x", network=AWAY, agent="bb", model="acme/dear"))
    assert key_signal(signals, "stranger.score", 2 * DAY + 60) == 0


def test_a_thief_cannot_become_a_habit_by_insisting() -> None:
    """A week of calls leaves the guise a guise."""
    signals = settled()
    for day in range(12, 19):
        for step in range(6):
            signals.observe(call_of(day * DAY + step * 60.0, "x", network=AWAY, agent="bb", model="acme/dear"))
    assert key_signal(signals, "stranger.score", 19 * DAY) >= 7


def test_a_key_that_wakes_up_says_how_long_it_slept() -> None:
    """For a day after its return, then no more."""
    signals = settled(days=8)
    signals.observe(call_of(28 * DAY, "x"))
    assert key_signal(signals, "key.idle_days", 28 * DAY + HOUR) > 19
    assert key_signal(signals, "key.idle_days", 30 * DAY) == 0


# Probing ------------------------------------------------------------------------------------------------------------
REFUSED = {"cause": "content_policy_violation"}


def test_what_is_refused_after_its_submit_counts_as_what_is_refused_at_once() -> None:
    """Queued work: each prompt is accepted, then refused by the model; refused twice, it counts once."""
    signals, words = Signals(), ("red", "blue", "green", "black", "white")
    for number, word in enumerate(words):
        text = f"a {word} dragon over the burning city at night"
        signals.observe(call_of(number * 10.0, text, raw=number + 1))
    for _ in range(2):
        for number, word in enumerate(words):
            text = f"a {word} dragon over the burning city at night"
            signals.observe(call_of(60.0 + number, text, raw=number + 1, verb="refused_later", seconds=0.0, **REFUSED))
    assert key_signal(signals, "probing.refused", 70) == 5
    assert key_signal(signals, "probing.variants", 70) == 4
    assert key_signal(signals, "key.calls", 70) == 5
    assert signals.observe(call_of(99, "x", key="nobody", verb="refused_later", **REFUSED)) == ()


@pytest.mark.threat("ML01:2023", "AML.T0054")
def test_other_words_for_a_refused_prompt_are_near_by_meaning() -> None:
    """Where meanings are hashed; other words that mean something else are not, and the memory can be written down."""
    signals, near, far = Signals(), bytes([3]) + bytes(31), bytes([85]) * 32
    signals.observe(call_of(0, "a red dragon over the burning city", raw=1, meaning=bytes(32), **REFUSED))
    for number, (text, meaning) in enumerate((("crimson wyrm, town in flames", near), ("a cup of tea", far))):
        signals.observe(call_of(10.0 + number, text, raw=10 + number, meaning=meaning))
    assert key_signal(signals, "probing.meanings", 20) == 1
    assert key_signal(signals, "probing.variants", 20) == 0
    assert 60 < key_signal(signals, "extraction.leap", 20) < 120
    again = Signals()
    assert restore(parts_of(signals, Meta(), frozenset(range(SHARDS))), again) is not None
    assert key_signal(again, "probing.meanings", 20) == 1


def test_variants_of_a_refused_prompt_are_counted_and_retries_are_not() -> None:
    """The very same text again proves nothing; another wording, or another spelling, does."""
    signals = Signals()
    for step in range(20):
        signals.observe(call_of(step, "a red dragon over the burning city at night", raw=1, **REFUSED))
    assert key_signal(signals, "probing.variants", 21) == 0
    for number, word in enumerate(("blue", "green", "black", "white")):
        text = f"a {word} dragon over the burning city at night"
        signals.observe(call_of(30 + number, text, raw=10 + number, **REFUSED))
    assert key_signal(signals, "probing.variants", 40) == 4
    signals.observe(call_of(41, "a r3d dr4gon over the burn1ng city at night", raw=99, **REFUSED))
    assert key_signal(signals, "probing.variants", 42) == 5
    assert key_signal(signals, "probing.variants", 42 + 2 * DAY) == 0


def test_a_heavy_user_with_ordinary_luck_never_adds_up() -> None:
    """One prompt in twelve refused for a month is no probing; two in three for an hour is."""
    source, signals = random.Random(2), Signals()  # noqa: S311
    for step in range(600):
        refused = REFUSED if step % 12 == 0 else {}
        signals.observe(call_of(step * 1_000.0, made_up(source), **refused))
    assert key_signal(signals, "probing.nats", 600_000) < 10
    for step in range(30):
        refused = REFUSED if step % 3 else {}
        signals.observe(call_of(700_000 + step, made_up(source), **refused))
    assert key_signal(signals, "probing.nats", 700_040) >= 10


# Copying a model ----------------------------------------------------------------------------------------------------
@pytest.mark.threat("ML05:2023", "AML.T0024.002")
def test_queries_made_to_cover_have_no_neighbours() -> None:
    """Made-up prompts are found within five hundred; people's, which refine one another, are not."""
    source, signals = random.Random(3), Signals()  # noqa: S311
    for step in range(400):
        signals.observe(call_of(step * 10.0, made_up(source), shape=7))
    assert key_signal(signals, "extraction.fresh_nats", 4_000) >= 12
    assert key_signal(signals, "extraction.same_shape", 4_000) == 1.0
    person, prompt = Signals(), made_up(source)
    for step in range(400):
        words = prompt.split()
        words[source.randrange(len(words))] = made_up(source, 1)
        prompt = made_up(source) if step % 3 == 0 else " ".join(words)
        person.observe(call_of(step * 10.0, prompt))
    assert key_signal(person, "extraction.fresh_nats", 4_000) < 12


@pytest.mark.threat("ML05:2023", "AML.T0024.002")
def test_steps_from_many_seeds_in_turn_are_an_adaptive_attack_and_templates_at_random_are_not() -> None:
    """Round after round over forty seeds, against an app that fills its forty templates as its users come."""
    source = random.Random(4)  # noqa: S311
    seeds = [made_up(source) for _ in range(40)]

    def step_from(seed: str) -> str:
        words = seed.split()
        words[source.randrange(len(words))] = made_up(source, 1)
        return " ".join(words)

    attack, app = Signals(), Signals()
    for number in range(600):
        attack.observe(call_of(number * 10.0, step_from(seeds[number % 40]), shape=7))
        app.observe(call_of(number * 10.0, step_from(source.choice(seeds)), shape=7))
    assert key_signal(attack, "extraction.rounds_nats", 6_000) >= 9
    assert key_signal(attack, "extraction.families", 6_000) >= 10
    assert key_signal(app, "extraction.rounds_nats", 6_000) < 9


# Many as one --------------------------------------------------------------------------------------------------------
@pytest.mark.threat("API6:2023")
def test_siblings_share_prompts_and_places_and_go_on_where_one_was_stopped() -> None:
    """Three accounts of one person; their neighbours behind the same address, with prompts of their own, are none."""
    signals = Signals()
    for day in range(4):
        at = day * DAY
        for account in ("s1", "s2", "s3"):
            for step in range(8):
                at += 20.0
                cause = {"cause": "rate_limit"} if step == 7 else {}
                text = f"a poster for the summer sale, item {step}"
                signals.observe(call_of(at, text, tenant=account, key=account, **cause))
            at += 30.0
        for step in range(8):
            signals.observe(call_of(at + step, f"holiday snap of beach {day} {step}", tenant="n", key="n"))
    end = 4 * DAY
    assert tenant_signal(signals, "sibling.tenants", end, "s2") == 2
    assert tenant_signal(signals, "sibling.handovers", end, "s2") > 1.9
    assert tenant_signal(signals, "sibling.tenants", end, "n") == 0


@pytest.mark.threat("API6:2023")
def test_a_campaign_begins_at_once_and_users_of_a_plug_in_join_one_by_one() -> None:
    """Twelve tenants that start with one text in a day, against twelve that have shared a template for a month."""
    campaign, plug_in = Signals(), Signals()
    for signals in (campaign, plug_in):
        signals.observe(call_of(0.0, "somebody was here before", tenant="old", key="old"))
    for number in range(12):
        for step in range(6):
            text = f"vote for the candidate of the party number {step}"
            campaign.observe(call_of(10 * DAY + number * 60 + step * 900, text, tenant=f"c{number}", key=f"c{number}"))
            at = number * 2 * DAY + 4 * DAY + step * 900
            plug_in.observe(call_of(at, text, tenant=f"p{number}", key=f"p{number}"))
    assert tenant_signal(campaign, "campaign.tenants", 11 * DAY, "c11") >= 8
    assert tenant_signal(plug_in, "campaign.tenants", 27 * DAY, "p11") <= 2


def test_a_rush_of_new_users_of_an_old_plug_in_is_no_campaign() -> None:
    """Twelve join within a day what twelve others have used for a week and go on using."""
    signals = Signals()
    signals.observe(call_of(0.0, "somebody was here before", tenant="somebody", key="somebody"))
    for day in range(4, 12):
        users = [f"{kind}{number}" for number in range(12) for kind in (("old", "new") if day == 11 else ("old",))]
        for step in range(6):
            for number, name in enumerate(users):
                at, text = day * DAY + step * 900 + number, f"rewrite this paragraph in a friendly tone {step}"
                signals.observe(call_of(at, text, tenant=name, key=name))
    assert tenant_signal(signals, "cluster.tenants", 11.1 * DAY, "new11") >= 8
    assert tenant_signal(signals, "campaign.tenants", 11.1 * DAY, "new11") == 0


# Guessing -----------------------------------------------------------------------------------------------------------
def network_signal(signals: Signals, name: str, at: float, network: str = AWAY) -> float:
    """One signal of a network."""
    return signals.of(Per.NETWORK, f"network:{network}", call_of(at).at)[name]


def test_distinct_credentials_are_guesses_and_a_forgotten_one_is_not() -> None:
    """A client that repeats its mistake for days counts once; an expired key never."""
    signals = Signals()
    for step in range(50):
        signals.observe(call_of(step, network=AWAY, key="", tenant="", cause="unknown", tried=1))
        signals.observe(call_of(step, network=HOME, key="", tenant="", cause="expired", tried=step))
    assert network_signal(signals, "guessing.day", 60) == 1
    assert network_signal(signals, "guessing.day", 60, HOME) == 0
    for step in range(20):
        signals.observe(call_of(100 + step, network=AWAY, key="", tenant="", cause="wrong_secret", tried=100 + step))
    assert network_signal(signals, "guessing.hour", 130) == 21


def test_a_key_that_guessing_opened_is_told_from_one_that_lives_there() -> None:
    """The owner behind the same address, who was there before, is not suspected for the neighbour's guesses."""
    signals = settled()
    for step in range(10):
        signals.observe(call_of(12 * DAY + step, network=HOME, key="", tenant="", cause="unknown", tried=step))
        signals.observe(call_of(12 * DAY + step, network=AWAY, key="", tenant="", cause="unknown", tried=step))
    signals.observe(call_of(12 * DAY + 60, "x", network=HOME))
    assert key_signal(signals, "guessing.opened", 12 * DAY + 61) == 0
    signals.observe(call_of(12 * DAY + 62, "x", network=AWAY))
    assert key_signal(signals, "guessing.opened", 12 * DAY + 63) == 10


# Bounds -------------------------------------------------------------------------------------------------------------
_CALLS = st.builds(
    lambda at, who, where, what, cause, text: call_of(
        at,
        text,
        key=f"k{who}",
        tenant=f"t{who}",
        network=f"10.{where}.0.0/24",
        agent=f"a{what}",
        cause=cause,
        tried=what,
    ),
    st.floats(0, 40 * DAY),
    st.integers(0, 3),
    st.integers(0, 30),
    st.integers(0, 9),
    st.sampled_from(["", "", "", "content_policy_violation", "rate_limit", "unknown", "suspended"]),
    st.sampled_from([None, "", "a cat", "a cat and a dog", "the sea at night", "\u200b"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_CALLS, max_size=60))
def test_every_signal_stays_within_its_bounds_whatever_comes(calls: list[Call]) -> None:
    """Out of order, doubled, refused or empty: no signal leaves the bounds that rules are checked against."""
    signals = Signals()
    for call in sorted(calls, key=lambda call: call.at):
        for per, subject in signals.observe(call):
            for name, value in shown(signals.of(per, subject, call.at), per).items():
                assert 0.0 <= value <= SIGNALS[name].most, name


def test_what_a_standing_refused_teaches_nothing() -> None:
    """A suspended thief cannot train the habits of the key."""
    signals = settled()
    before = key_signal(signals, "key.calls", 12 * DAY)
    for step in range(50):
        signals.observe(call_of(12 * DAY + step, "x", network=AWAY, cause="suspended"))
    assert key_signal(signals, "key.calls", 12 * DAY + 60) == before


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, guises, peers, buckets, places and networks: the least recently used go."""
    monkeypatch.setattr("forestay.abuse.signals.MAX_KEYS", 20)
    monkeypatch.setattr(clusters, "MAX_BUCKETS", 50)
    monkeypatch.setattr(clusters, "MAX_PLACES", 20)
    monkeypatch.setattr(clusters, "MAX_MEMBERS", 20)
    monkeypatch.setattr(guessing, "MAX_TRIED", 10)
    signals, source = Signals(), random.Random(1)  # noqa: S311
    for step in range(400):
        who = f"n{step % 90}"
        signals.observe(call_of(step * 50.0, made_up(source), key=who, tenant=who, network=f"10.{step % 200}.1.0/24"))
        signals.observe(call_of(step * 50.0, network=AWAY, key="", tenant="", cause="unknown", tried=step))
    assert len(signals.keys) == 20
    assert len(signals.clusters.buckets) <= 50
    assert len(signals.clusters.places) <= 20
    assert len(signals.clusters.members) <= 20
    assert len(signals.guessing.networks[AWAY].first_at) <= 10
    one = settled()
    for step in range(60):
        one.observe(call_of(12 * DAY + step, "x", network=AWAY, agent=f"g{step}"))
    assert len(one.keys["k1"].habits.guises) <= habits.MAX_GUISES


def test_networks_are_widened_to_what_a_provider_owns() -> None:
    """A /16 for IPv4, a /32 for IPv6, nothing for nonsense."""
    assert wide_network("203.0.113.0/24") == "203.0.0.0/16"
    assert wide_network("2001:db8:7::/48") == "2001:db8::/32"
    assert wide_network("nowhere") == ""
    assert HASHER.hash("x") is not None
