-- Which store this is: contents kept apart from the database carry the same id, so that nobody sweeps another's.
CREATE TABLE store (
  id     TEXT COLLATE "C" PRIMARY KEY,
  -- How often somebody has taken hold of it. Counted where a lock does not lie beside the data.
  tenure BIGINT NOT NULL DEFAULT 0
);

-- Under which name an object store keeps a content. No two uploads ever use one name, so removing an object late does no harm.
CREATE TABLE objects (
  digest BYTEA PRIMARY KEY CHECK (length(digest) = 32),
  name   TEXT COLLATE "C" NOT NULL UNIQUE
);
