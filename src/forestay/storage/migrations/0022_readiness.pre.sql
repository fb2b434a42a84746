-- Readiness reviews: what people have accepted for a while, who let a model in, and its newest score card. Owner: readiness.

CREATE TABLE readiness_waivers (
    model_id text NOT NULL,
    item     text NOT NULL,
    owner    text NOT NULL,
    reason   text NOT NULL,
    until    date NOT NULL,                    -- included
    given_by text NOT NULL,
    given_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_id, item)
);

CREATE TABLE readiness (
    model_id      text PRIMARY KEY,
    admitted_at   timestamptz,                 -- null: nobody has let it in
    admitted_by   text,
    card          jsonb NOT NULL,              -- readiness/model.Card
    ready         boolean NOT NULL,
    reviewed_at   timestamptz NOT NULL,
    unready_since timestamptz
);
