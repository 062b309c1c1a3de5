"""What the suites share: a server of their own, plain HTTP, counting. Standard library only."""
