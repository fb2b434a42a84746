"""Service level objectives: what was promised, how much of the error budget is left, what burns it, who must know.

Values in, values out, but for `loop` (collects counts), `postgres_store` (keeps standings). Alerting reads those.
"""
