-- What stood between a kept container's code and the host. Those kept before were all of namespaces.
ALTER TABLE checkpoints ADD COLUMN isolation TEXT NOT NULL DEFAULT 'namespaces' CHECK (isolation IN ('namespaces', 'gvisor'));
