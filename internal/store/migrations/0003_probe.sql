-- The one row that is written to find out whether the database can be written.

CREATE TABLE probe (
    written BIGINT NOT NULL
);

INSERT INTO probe (written) VALUES (0);
