-- The files of containers that are not live, as layers over their image.
CREATE TABLE checkpoints (
  container   TEXT COLLATE "C" PRIMARY KEY REFERENCES containers (id) ON DELETE CASCADE,
  -- Digest of the image that the layer lies over; over another one it means nothing.
  image       TEXT NOT NULL,
  size_bytes  BIGINT NOT NULL CHECK (size_bytes >= 0),
  made_at_us  BIGINT NOT NULL,
  blob        BYTEA NOT NULL REFERENCES blobs (digest)
);
CREATE INDEX checkpoints_by_blob ON checkpoints (blob);
