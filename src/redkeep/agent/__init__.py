"""The agent: one per host, owner of its redis-server processes and their files."""
