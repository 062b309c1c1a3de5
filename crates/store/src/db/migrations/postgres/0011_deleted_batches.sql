-- Where deleted batches stood, for a while, as for files.
CREATE TABLE deleted_batches (
  id            TEXT COLLATE "C" PRIMARY KEY,
  workspace     TEXT NOT NULL,
  created_at_us BIGINT NOT NULL,
  number        BIGINT NOT NULL,
  deleted_at_us BIGINT NOT NULL
);
CREATE INDEX deleted_batches_by_age ON deleted_batches (deleted_at_us);
