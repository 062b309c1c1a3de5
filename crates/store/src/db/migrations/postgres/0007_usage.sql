-- What workspaces with a quota have used, by day of UTC (days since 1970).
CREATE TABLE usage_by_day (
  workspace  TEXT COLLATE "C" NOT NULL,
  day        BIGINT NOT NULL,
  executions BIGINT NOT NULL DEFAULT 0 CHECK (executions >= 0),
  tokens     BIGINT NOT NULL DEFAULT 0 CHECK (tokens >= 0),
  PRIMARY KEY (workspace, day)
);

-- What whole workspaces hold, their scopes together: files whose content is kept, and their bytes, to which named checkpoints add
-- theirs. Changed with every file, so that a quota costs the same however many files and end users there are.
CREATE TABLE holdings (
  workspace  TEXT COLLATE "C" PRIMARY KEY,
  files      BIGINT NOT NULL CHECK (files >= 0),
  bytes      BIGINT NOT NULL CHECK (bytes >= 0)
);
INSERT INTO holdings (workspace, files, bytes)
  SELECT workspace, count(*), CAST(sum(size_bytes) AS BIGINT) FROM files WHERE blob IS NOT NULL GROUP BY workspace;
