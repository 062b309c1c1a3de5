-- Checkpoints with an id: files of a container as they once were, until they are deleted or their container is.
-- Their size counts in `workspaces.bytes_used` and `holdings.bytes`, as a file's does.
CREATE TABLE named_checkpoints (
  id         TEXT COLLATE "C" PRIMARY KEY,
  container  TEXT NOT NULL REFERENCES containers (id),
  workspace  TEXT NOT NULL REFERENCES workspaces (workspace),
  number     BIGINT NOT NULL,
  image      TEXT NOT NULL,
  isolation  TEXT NOT NULL CHECK (isolation IN ('namespaces', 'gvisor')),
  size_bytes BIGINT NOT NULL CHECK (size_bytes >= 0),
  made_at_us BIGINT NOT NULL,
  blob       BYTEA NOT NULL REFERENCES blobs (digest),
  UNIQUE (container, made_at_us, number)
);
CREATE INDEX named_checkpoints_by_blob ON named_checkpoints (blob);
