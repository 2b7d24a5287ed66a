-- A claim is confirmed by the first call of its job; one that is not is
-- dissolved, and its deployment gets another job. So a deployment may have
-- several jobs, of which one lives. SQLite cannot drop a rule of uniqueness, so
-- the tables are made anew, and those that refer to them, too.

CREATE TABLE jobs_v2 (
    id             TEXT    NOT NULL PRIMARY KEY,
    deployment_id  TEXT    NOT NULL REFERENCES deployments (id),
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
    confirmed      BIGINT  NOT NULL,
    started        BIGINT  NOT NULL,
    modified       BIGINT  NOT NULL,
    ended          BIGINT  NOT NULL,
    last_beat      BIGINT  NOT NULL
);

-- Whether the runner of an old job was heard of is not known, so it was: what
-- may have run is never handed out again.
INSERT INTO jobs_v2 (id, deployment_id, run_id, pool_id, status, lost,
    agent_hostname, agent_ip, agent_pid, agent_platform, agent_version,
    claimed, confirmed, started, modified, ended, last_beat)
SELECT id, deployment_id, run_id, pool_id, status, lost,
    agent_hostname, agent_ip, agent_pid, agent_platform, agent_version,
    claimed, claimed, started, modified, ended, last_beat
FROM jobs;

CREATE TABLE steps_v2 (
    job_id   TEXT   NOT NULL REFERENCES jobs_v2 (id),
    idx      BIGINT NOT NULL,
    name     TEXT   NOT NULL,
    status   TEXT   NOT NULL,
    started  BIGINT NOT NULL,
    modified BIGINT NOT NULL,
    lines    BIGINT NOT NULL,
    PRIMARY KEY (job_id, idx)
);

INSERT INTO steps_v2 (job_id, idx, name, status, started, modified, lines)
SELECT job_id, idx, name, status, started, modified, lines FROM steps;

CREATE TABLE tokens_v2 (
    hash         BYTEA  NOT NULL PRIMARY KEY,
    kind         TEXT   NOT NULL,
    organization TEXT   NOT NULL REFERENCES organizations (name),
    user_id      TEXT   REFERENCES users (id),
    pool_id      TEXT   REFERENCES pools (id) ON DELETE CASCADE,
    job_id       TEXT   REFERENCES jobs_v2 (id),
    created      BIGINT NOT NULL
);

INSERT INTO tokens_v2 (hash, kind, organization, user_id, pool_id, job_id, created)
SELECT hash, kind, organization, user_id, pool_id, job_id, created FROM tokens;

DROP TABLE tokens;
DROP TABLE steps;
DROP TABLE jobs;
ALTER TABLE jobs_v2 RENAME TO jobs;
ALTER TABLE steps_v2 RENAME TO steps;
ALTER TABLE tokens_v2 RENAME TO tokens;

-- Whatever the program does, the database itself keeps a deployment from having
-- two jobs that live.
CREATE UNIQUE INDEX jobs_one_live ON jobs (deployment_id) WHERE ended = 0;

CREATE INDEX jobs_deployment ON jobs (deployment_id);

CREATE INDEX jobs_live ON jobs (pool_id) WHERE ended = 0;
