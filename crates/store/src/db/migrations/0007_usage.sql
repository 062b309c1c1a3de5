-- What workspaces with a quota have used, by day of UTC (days since 1970).
CREATE TABLE usage_by_day (
  workspace  TEXT NOT NULL,
  day        INTEGER NOT NULL,
  executions INTEGER NOT NULL DEFAULT 0 CHECK (executions >= 0),
  tokens     INTEGER NOT NULL DEFAULT 0 CHECK (tokens >= 0),
  PRIMARY KEY (workspace, day)
) STRICT, WITHOUT ROWID;

-- What whole workspaces hold, their scopes together: files whose content is kept, and their bytes, to which named checkpoints add
-- theirs. Changed with every file, so that a quota costs the same however many files and end users there are.
CREATE TABLE holdings (
  workspace  TEXT PRIMARY KEY,
  files      INTEGER NOT NULL CHECK (files >= 0),
  bytes      INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO holdings (workspace, files, bytes)
  SELECT workspace, count(*), sum(size_bytes) FROM files WHERE blob IS NOT NULL GROUP BY workspace;
