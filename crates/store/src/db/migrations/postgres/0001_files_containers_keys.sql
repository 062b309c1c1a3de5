-- Instants are microseconds since 1970 (columns `_us`). Places in listings are (created_at_us, number).

CREATE TABLE workspaces (
  workspace   TEXT COLLATE "C" PRIMARY KEY,
  next_number BIGINT NOT NULL DEFAULT 1,
  -- The logical size of the files whose content is kept; identical contents count each time, so that nobody
  -- learns from it what another workspace holds. Kept true by the triggers below.
  bytes_used  BIGINT NOT NULL DEFAULT 0 CHECK (bytes_used >= 0)
);

CREATE TABLE blobs (
  digest     BYTEA PRIMARY KEY CHECK (length(digest) = 32),
  size_bytes BIGINT NOT NULL CHECK (size_bytes >= 0)
);

CREATE TABLE files (
  id            TEXT COLLATE "C" PRIMARY KEY,
  workspace     TEXT NOT NULL REFERENCES workspaces (workspace),
  number        BIGINT NOT NULL,
  filename      TEXT NOT NULL,
  mime_type     TEXT NOT NULL,
  size_bytes    BIGINT NOT NULL CHECK (size_bytes >= 0),
  -- The container that made it; NULL for uploads. No reference: files outlive containers.
  container     TEXT,
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT,
  -- NULL once the content was released.
  blob          BYTEA REFERENCES blobs (digest),
  UNIQUE (workspace, created_at_us, number)
);

CREATE INDEX files_by_blob ON files (blob) WHERE blob IS NOT NULL;
CREATE INDEX files_to_release ON files (expires_at_us) WHERE expires_at_us IS NOT NULL AND blob IS NOT NULL;
CREATE INDEX files_to_remove ON files (expires_at_us) WHERE expires_at_us IS NOT NULL AND blob IS NULL;

CREATE FUNCTION count_workspace_bytes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'DELETE' AND NEW.blob IS NOT NULL AND (TG_OP = 'INSERT' OR OLD.blob IS NULL) THEN
    UPDATE workspaces SET bytes_used = bytes_used + NEW.size_bytes WHERE workspace = NEW.workspace;
  END IF;
  IF TG_OP <> 'INSERT' AND OLD.blob IS NOT NULL AND (TG_OP = 'DELETE' OR NEW.blob IS NULL) THEN
    UPDATE workspaces SET bytes_used = bytes_used - OLD.size_bytes WHERE workspace = OLD.workspace;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER files_counted AFTER INSERT OR DELETE OR UPDATE OF blob ON files
  FOR EACH ROW EXECUTE FUNCTION count_workspace_bytes();

-- Where deleted files stood, for a while: a client that deletes files while it pages through them with
-- `after_id` names one that is gone.
CREATE TABLE deleted_files (
  id            TEXT COLLATE "C" PRIMARY KEY,
  workspace     TEXT NOT NULL,
  created_at_us BIGINT NOT NULL,
  number        BIGINT NOT NULL,
  deleted_at_us BIGINT NOT NULL
);
CREATE INDEX deleted_files_by_age ON deleted_files (deleted_at_us);

CREATE TABLE containers (
  id            TEXT COLLATE "C" PRIMARY KEY,
  workspace     TEXT NOT NULL REFERENCES workspaces (workspace),
  number        BIGINT NOT NULL,
  created_at_us BIGINT NOT NULL,
  expires_at_us BIGINT NOT NULL,
  UNIQUE (workspace, created_at_us, number)
);
CREATE INDEX containers_by_expiry ON containers (expires_at_us);

CREATE TABLE keys (
  id            TEXT COLLATE "C" PRIMARY KEY,
  workspace     TEXT NOT NULL,
  label         TEXT NOT NULL,
  -- SHA-256 of the key's text, which is kept nowhere.
  hash          BYTEA NOT NULL UNIQUE CHECK (length(hash) = 32),
  created_at_us BIGINT NOT NULL,
  revoked_at_us BIGINT
);
