"""Callers for tests of signals: calls with defaults, at moments of one's choosing."""

from forestay.abuse.calls import Call, category_of
from forestay.abuse.signals import Signals
from forestay.abuse.simhash import PromptHasher
from forestay.abuse.vocabulary import Per

START = 1_893_456_000.0  # 2030-01-01T00:00:00Z
HOUR, DAY = 3600.0, 86_400.0
HASHER = PromptHasher(b"tests")
HOME, AWAY = "203.0.113.0/24", "198.51.100.0/24"


def call_of(at: float, text: str | None = None, **fields: object) -> Call:
    """One call of key k1 at `at` seconds after the start; `cause` makes it refused."""
    cause = str(fields.pop("cause", ""))
    values: dict[str, object] = {
        "id": f"{at:.3f}",
        "tenant": "acme",
        "key": "k1",
        "model": "acme/digits",
        "network": HOME,
        "agent": "aa",
        "seconds": 1.0,
        "prompt": None if text is None else HASHER.hash(text),
        **fields,
    }
    return Call(at=START + at, cause=cause, category=category_of(cause), accepted=not cause, **values)  # type: ignore[arg-type]


def key_signal(signals: Signals, name: str, at: float, key: str = "k1") -> float:
    """One signal of a key."""
    return signals.of(Per.KEY, f"key:{key}", START + at)[name]


def tenant_signal(signals: Signals, name: str, at: float, tenant: str) -> float:
    """One signal of a tenant."""
    return signals.of(Per.TENANT, f"tenant:{tenant}", START + at)[name]


def settled(days: int = 12) -> Signals:
    """Signals in which k1 has called from home, in two sessions a day, for so many days."""
    signals = Signals()
    for day in range(days):
        for hour in (9, 15):
            for step in range(4):
                signals.observe(
                    call_of(day * DAY + hour * HOUR + step * 60.0, f"a lighthouse in a storm number {step}")
                )
    return signals
