-- What workspaces with a quota have used, by day of UTC (days since 1970).
CREATE TABLE usage_by_day (
  workspace  TEXT NOT NULL,
  day        INTEGER NOT NULL,
  executions INTEGER NOT NULL DEFAULT 0 CHECK (executions >= 0),
  tokens     INTEGER NOT NULL DEFAULT 0 CHECK (tokens >= 0),
  PRIMARY KEY (workspace, day)
) STRICT, WITHOUT ROWID;
