"""The truth: SQLAlchemy and Alembic over SQLite or PostgreSQL."""
