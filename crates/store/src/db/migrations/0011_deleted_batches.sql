-- Where deleted batches stood, for a while, as for files.
CREATE TABLE deleted_batches (
  id            TEXT PRIMARY KEY,
  workspace     TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  number        INTEGER NOT NULL,
  deleted_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deleted_batches_by_age ON deleted_batches (deleted_at_us);
