-- Batches of requests that run unattended (wire.md §17.3). Instants and places as in the first schema.
CREATE TABLE batches (
  id            TEXT PRIMARY KEY,
  workspace     TEXT NOT NULL REFERENCES workspaces (workspace),
  number        INTEGER NOT NULL,
  -- What its requests were sent with, as the server wrote it.
  asked         TEXT NOT NULL,
  -- What has to stand between its code and the host; NULL leaves it to the server.
  isolation     TEXT CHECK (isolation IN ('namespaces', 'gvisor')),
  items         INTEGER NOT NULL CHECK (items > 0),
  -- 0 while the items are being written: such a batch exists for nobody, and is removed at the next start.
  is_whole      INTEGER NOT NULL DEFAULT 0 CHECK (is_whole IN (0, 1)),
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL,
  cancel_initiated_at_us INTEGER,
  ended_at_us   INTEGER,
  archived_at_us INTEGER,
  succeeded     INTEGER NOT NULL DEFAULT 0,
  errored       INTEGER NOT NULL DEFAULT 0,
  canceled      INTEGER NOT NULL DEFAULT 0,
  expired       INTEGER NOT NULL DEFAULT 0,
  UNIQUE (workspace, created_at_us, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_open ON batches (created_at_us) WHERE ended_at_us IS NULL;
CREATE INDEX batches_to_archive ON batches (created_at_us) WHERE archived_at_us IS NULL AND ended_at_us IS NOT NULL;

CREATE TABLE batch_items (
  batch     TEXT NOT NULL REFERENCES batches (id) ON DELETE CASCADE,
  position  INTEGER NOT NULL,
  custom_id TEXT NOT NULL,
  -- The request, until it has come to something.
  params    BLOB,
  outcome   TEXT CHECK (outcome IN ('succeeded', 'errored', 'canceled', 'expired')),
  -- What it came to, as it is told; NULL where the outcome says all.
  result    BLOB,
  PRIMARY KEY (batch, position),
  CHECK ((params IS NULL) = (outcome IS NOT NULL))
) STRICT;
CREATE INDEX batch_items_waiting ON batch_items (batch, position) WHERE outcome IS NULL;
