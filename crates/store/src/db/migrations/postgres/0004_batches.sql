-- Batches of requests that run unattended (wire.md §17.3). Instants and places as in the first schema.
CREATE TABLE batches (
  id            TEXT COLLATE "C" PRIMARY KEY,
  workspace     TEXT NOT NULL REFERENCES workspaces (workspace),
  number        BIGINT NOT NULL,
  -- What its requests were sent with, as the server wrote it.
  asked         TEXT NOT NULL,
  -- What has to stand between its code and the host; NULL leaves it to the server.
  isolation     TEXT CHECK (isolation IN ('namespaces', 'gvisor')),
  items         BIGINT NOT NULL CHECK (items > 0),
  -- 0 while the items are being written: such a batch exists for nobody, and is removed at the next start.
  is_whole      BIGINT NOT NULL DEFAULT 0 CHECK (is_whole IN (0, 1)),
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT NOT NULL,
  cancel_initiated_at_us BIGINT,
  ended_at_us   BIGINT,
  archived_at_us BIGINT,
  succeeded     BIGINT NOT NULL DEFAULT 0,
  errored       BIGINT NOT NULL DEFAULT 0,
  canceled      BIGINT NOT NULL DEFAULT 0,
  expired       BIGINT NOT NULL DEFAULT 0,
  UNIQUE (workspace, created_at_us, number)
);
CREATE INDEX batches_open ON batches (created_at_us) WHERE ended_at_us IS NULL;
CREATE INDEX batches_to_archive ON batches (created_at_us) WHERE archived_at_us IS NULL AND ended_at_us IS NOT NULL;

CREATE TABLE batch_items (
  batch     TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
  position  BIGINT NOT NULL,
  custom_id TEXT NOT NULL,
  -- The request, until it has come to something.
  params    BYTEA,
  outcome   TEXT CHECK (outcome IN ('succeeded', 'errored', 'canceled', 'expired')),
  -- What it came to, as it is told; NULL where the outcome says all.
  result    BYTEA,
  PRIMARY KEY (batch, position),
  CHECK ((params IS NULL) = (outcome IS NOT NULL))
);
CREATE INDEX batch_items_waiting ON batch_items (batch, position) WHERE outcome IS NULL;
