"""Tools for tests that ship with Redkeep, for its own tests and for those of its users."""
