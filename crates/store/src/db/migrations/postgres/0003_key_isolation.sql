-- What has to stand between a key's code and the host; NULL leaves it to the server.
ALTER TABLE keys ADD COLUMN isolation TEXT CHECK (isolation IN ('namespaces', 'gvisor'));
