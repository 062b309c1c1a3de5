-- Instants are microseconds since 1970 (columns `_us`). Places in listings are (created_at_us, number).

CREATE TABLE workspaces (
  workspace   TEXT PRIMARY KEY,
  next_number INTEGER NOT NULL DEFAULT 1,
  -- The logical size of the files whose content is kept; identical contents count each time, so that nobody
  -- learns from it what another workspace holds. Kept true by the triggers below.
  bytes_used  INTEGER NOT NULL DEFAULT 0 CHECK (bytes_used >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
  digest     BLOB PRIMARY KEY CHECK (length(digest) = 32),
  size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE files (
  id            TEXT PRIMARY KEY,
  workspace     TEXT NOT NULL REFERENCES workspaces (workspace),
  number        INTEGER NOT NULL,
  filename      TEXT NOT NULL,
  mime_type     TEXT NOT NULL,
  size_bytes    INTEGER NOT NULL CHECK (size_bytes >= 0),
  -- The container that made it; NULL for uploads. No reference: files outlive containers.
  container     TEXT,
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER,
  -- NULL once the content was released.
  blob          BLOB REFERENCES blobs (digest),
  UNIQUE (workspace, created_at_us, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX files_by_blob ON files (blob) WHERE blob IS NOT NULL;
CREATE INDEX files_to_release ON files (expires_at_us) WHERE expires_at_us IS NOT NULL AND blob IS NOT NULL;
CREATE INDEX files_to_remove ON files (expires_at_us) WHERE expires_at_us IS NOT NULL AND blob IS NULL;

CREATE TRIGGER files_inserted AFTER INSERT ON files WHEN new.blob IS NOT NULL BEGIN
  UPDATE workspaces SET bytes_used = bytes_used + new.size_bytes WHERE workspace = new.workspace;
END;
CREATE TRIGGER files_deleted AFTER DELETE ON files WHEN old.blob IS NOT NULL BEGIN
  UPDATE workspaces SET bytes_used = bytes_used - old.size_bytes WHERE workspace = old.workspace;
END;
CREATE TRIGGER files_released AFTER UPDATE OF blob ON files WHEN old.blob IS NOT NULL AND new.blob IS NULL BEGIN
  UPDATE workspaces SET bytes_used = bytes_used - old.size_bytes WHERE workspace = old.workspace;
END;

-- Where deleted files stood, for a while: a client that deletes files while it pages through them with
-- `after_id` names one that is gone.
CREATE TABLE deleted_files (
  id            TEXT PRIMARY KEY,
  workspace     TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  number        INTEGER NOT NULL,
  deleted_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deleted_files_by_age ON deleted_files (deleted_at_us);

CREATE TABLE containers (
  id            TEXT PRIMARY KEY,
  workspace     TEXT NOT NULL REFERENCES workspaces (workspace),
  number        INTEGER NOT NULL,
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL,
  UNIQUE (workspace, created_at_us, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX containers_by_expiry ON containers (expires_at_us);

CREATE TABLE keys (
  id            TEXT PRIMARY KEY,
  workspace     TEXT NOT NULL,
  label         TEXT NOT NULL,
  -- SHA-256 of the key's text, which is kept nowhere.
  hash          BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
  created_at_us INTEGER NOT NULL,
  revoked_at_us INTEGER
) STRICT, WITHOUT ROWID;
