"""Labels that rules gave, beside the standings that they want: the one way in which a history is judged.

Pure. Called by the abuse loop, by replay and by explain.
"""

import datetime as dt

from forestay.abuse.decide import Give, History, decide_standing
from forestay.abuse.rules import Rules
from forestay.fleet.standing import Standing

Labels = dict[str, dict[str, dt.datetime]]  # subject -> label -> its end


def in_force(labels: Labels, subject: str, now: dt.datetime) -> dict[str, dt.datetime]:
    """Return the subject's labels whose time is not over."""
    return {name: until for name, until in labels.get(subject, {}).items() if until > now}


def judge(history: History, rules: Rules, labels: Labels, now: dt.datetime) -> list[Standing]:
    """Decide; keep the labels that were given in `labels`, return the standings that are wanted."""
    kept, wanted = dict(history.labels), list[Standing]()
    for item in decide_standing(history, rules, now):
        if isinstance(item, Give):
            kept[item.label] = item.until
        else:
            wanted.append(item)
    if kept:
        labels[history.subject] = kept
    else:
        labels.pop(history.subject, None)
    return wanted
