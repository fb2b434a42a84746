"""`fairness`: two tenants that always wait, one sending fifty times more requests and ten times heavier ones.

Simulated on one slot and on four, with the platform's own prediction, turns and settlement (`forestay.simulator`),
and beside it first come, first served on the very same arrivals. The gap is how far a tenant ever was from its share
of what both had been served, while both wait; theory allows one largest request each (queue/fairness). Shown beside it:
the same where a request counts whole at its start. Each round is another seed; the worst of all rounds counts.
"""

from bench.table import Row, median
from forestay.capacity.predict import cold_model
from forestay.chance import SeededChance
from forestay.ids import TenantId
from forestay.simulator.demand import Arrival, Caller, backlog, diffusion, merged
from forestay.simulator.policies import FairPolicy, FifoPolicy
from forestay.simulator.report import jain, received, worst_gap, worst_served_gap
from forestay.simulator.world import Policy, World

SECONDS = 1_200.0
LIGHT = 400  # requests of the light tenant; the heavy one sends fifty times as many
COST_SECONDS = 2.0
_GIVEN_OUT = "counts at the start what a run will really take, which nobody knows by then"
TENANTS = {TenantId("heavy"): 1.0, TenantId("light"): 1.0}


def _arrivals(seed: int) -> list[Arrival]:
    chance = SeededChance(seed)
    cost = diffusion(COST_SECONDS, 0.2, overhead=0.0)
    heavy = Caller("heavy", 1.0, ({"steps": 300.0},))
    light = Caller("light", 1.0, ({"steps": 30.0},))
    return merged(backlog(light, cost, LIGHT * 4, chance), backlog(heavy, cost, LIGHT * 50, chance))


def _measure(policy: Policy, slots: int, seed: int) -> tuple[float, float, float, float]:
    """Return the worst gap in largest requests, Jain's index, the light tenant's share, the worst gap as served."""
    stories = World(policy, slots).run(_arrivals(seed), SECONDS)
    gap, largest = worst_gap(stories, TENANTS)
    given = received(stories, SECONDS)
    shares = [given.get(tenant, 0.0) for tenant in TENANTS]
    served, of = worst_served_gap(stories, TENANTS, SECONDS)
    return gap / largest, jain(shares), given.get(TenantId("light"), 0.0) / sum(shares), served / of


def run(rounds: int) -> list[Row]:
    """Measure `rounds` seeds."""
    rows: list[Row] = []
    for slots in (1, 4):
        ours, fifo = [], []
        for seed in range(1, rounds + 1):
            model = cold_model({"steps": 30.0}, COST_SECONDS, ())
            ours.append(_measure(FairPolicy(model, slots), slots, seed))
            fifo.append(_measure(FifoPolicy(), slots, seed))
        where = f"{slots} slot{'s' if slots > 1 else ''}"
        rows += [
            Row(f"{where}: worst gap, served", max(r[3] for r in ours), "largest requests", 1.0, "<="),
            Row(f"{where}: worst gap, given out", max(r[0] for r in ours), "largest requests", 1.0, "<=", _GIVEN_OUT),
            Row(f"{where}: Jain's index", median([r[1] for r in ours]), "", 0.99),
            Row(f"{where}: share of the light tenant", median([r[2] for r in ours]), "of all", note="fair is 0.5"),
            Row(f"{where}: FIFO, worst gap, served", max(r[3] for r in fifo), "largest requests"),
            Row(f"{where}: FIFO, Jain's index", median([r[1] for r in fifo]), ""),
        ]
    return rows
