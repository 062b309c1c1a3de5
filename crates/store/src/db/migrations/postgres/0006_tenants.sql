-- Until when a key opens anything; NULL is for ever.
ALTER TABLE keys ADD COLUMN expires_at_us BIGINT;
-- Globs of the models that it may name, one on each line; NULL is all of them.
ALTER TABLE keys ADD COLUMN models TEXT;
-- What it opens: the workspace's things, or in each request those of one end user.
ALTER TABLE keys ADD COLUMN scope TEXT NOT NULL DEFAULT 'workspace' CHECK (scope IN ('workspace', 'per-user'));

-- End users of workspaces that have made something. `scope` is what stands in every column `workspace` of theirs.
CREATE TABLE scopes (
  scope         TEXT COLLATE "C" PRIMARY KEY,
  workspace     TEXT NOT NULL,
  user_id       TEXT NOT NULL,
  created_at_us BIGINT NOT NULL
);
CREATE INDEX scopes_by_workspace ON scopes (workspace);
