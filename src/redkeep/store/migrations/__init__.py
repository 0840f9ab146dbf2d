"""Alembic's scripts, one per change of the schema. Never edit one that was released: add the next."""
