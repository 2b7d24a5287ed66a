-- The first schema. Times are unix nanoseconds, 0 for "not yet". It is written
-- for SQLite and Postgres alike.

CREATE TABLE organizations (
    name         TEXT   NOT NULL PRIMARY KEY,
    default_pool TEXT   NOT NULL,
    created      BIGINT NOT NULL
);

CREATE TABLE users (
    id      TEXT   NOT NULL PRIMARY KEY,
    name    TEXT   NOT NULL UNIQUE,
    email   TEXT   NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE pools (
    id              TEXT   NOT NULL PRIMARY KEY,
    organization    TEXT   NOT NULL REFERENCES organizations (name),
    name            TEXT   NOT NULL,
    description     TEXT   NOT NULL,
    created         BIGINT NOT NULL,
    last_seen       BIGINT NOT NULL,
    last_deployment BIGINT NOT NULL,
    UNIQUE (organization, name)
);

CREATE TABLE agents (
    pool_id   TEXT   NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    hostname  TEXT   NOT NULL,
    pid       TEXT   NOT NULL,
    ip        TEXT   NOT NULL,
    platform  TEXT   NOT NULL,
    version   TEXT   NOT NULL,
    last_seen BIGINT NOT NULL,
    PRIMARY KEY (pool_id, hostname, pid)
);

CREATE TABLE stacks (
    id           TEXT   NOT NULL PRIMARY KEY,
    organization TEXT   NOT NULL REFERENCES organizations (name),
    project      TEXT   NOT NULL,
    name         TEXT   NOT NULL,
    last_version BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    UNIQUE (organization, project, name)
);

CREATE TABLE settings (
    stack_id TEXT   NOT NULL PRIMARY KEY REFERENCES stacks (id) ON DELETE CASCADE,
    version  BIGINT NOT NULL,
    body     BYTEA  NOT NULL,
    modified BIGINT NOT NULL
);

CREATE TABLE deployments (
    id               TEXT   NOT NULL PRIMARY KEY,
    stack_id         TEXT   NOT NULL REFERENCES stacks (id),
    version          BIGINT NOT NULL,
    status           TEXT   NOT NULL,
    operation        TEXT   NOT NULL,
    pool_id          TEXT   NOT NULL, -- '' is the default pool; not a reference, because it outlives the pool
    requested_by     TEXT   NOT NULL REFERENCES users (id),
    initiator        TEXT   NOT NULL,
    request          BYTEA  NOT NULL, -- JSON, its secrets sealed
    cancel_requested BIGINT NOT NULL,
    created          BIGINT NOT NULL,
    modified         BIGINT NOT NULL,
    UNIQUE (stack_id, version)
);

-- Whatever the program does, the database itself keeps a stack from having two
-- active deployments.
CREATE UNIQUE INDEX deployments_one_active ON deployments (stack_id)
    WHERE status IN ('accepted', 'running');

CREATE INDEX deployments_unfinished ON deployments (stack_id, version)
    WHERE status IN ('not-started', 'accepted', 'running');

CREATE INDEX deployments_queue ON deployments (created, id)
    WHERE status = 'not-started';

CREATE TABLE jobs (
    id             TEXT    NOT NULL PRIMARY KEY,
    deployment_id  TEXT    NOT NULL UNIQUE REFERENCES deployments (id),
    run_id         TEXT    NOT NULL,
    pool_id        TEXT    NOT NULL,
    status         TEXT    NOT NULL,
    lost           BOOLEAN NOT NULL,
    agent_hostname TEXT    NOT NULL,
    agent_ip       TEXT    NOT NULL,
    agent_pid      TEXT    NOT NULL,
    agent_platform TEXT    NOT NULL,
    agent_version  TEXT    NOT NULL,
    claimed        BIGINT  NOT NULL,
    started        BIGINT  NOT NULL,
    modified       BIGINT  NOT NULL,
    ended          BIGINT  NOT NULL,
    last_beat      BIGINT  NOT NULL
);

CREATE INDEX jobs_live ON jobs (pool_id) WHERE ended = 0;

CREATE TABLE steps (
    job_id   TEXT   NOT NULL REFERENCES jobs (id),
    idx      BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    status   TEXT   NOT NULL,
    started  BIGINT NOT NULL,
    modified BIGINT NOT NULL,
    lines    BIGINT NOT NULL,
    PRIMARY KEY (job_id, idx)
);

CREATE TABLE log_chunks (
    job_id  TEXT   NOT NULL,
    step    BIGINT NOT NULL,
    first   BIGINT NOT NULL,
    count   BIGINT NOT NULL,
    payload BYTEA  NOT NULL,
    PRIMARY KEY (job_id, step, first)
);

CREATE TABLE tokens (
    hash         BYTEA  NOT NULL PRIMARY KEY,
    kind         TEXT   NOT NULL,
    organization TEXT   NOT NULL REFERENCES organizations (name),
    user_id      TEXT   REFERENCES users (id),
    pool_id      TEXT   REFERENCES pools (id) ON DELETE CASCADE,
    job_id       TEXT   REFERENCES jobs (id),
    created      BIGINT NOT NULL
);
