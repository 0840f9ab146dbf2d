"""Runbooks: one operation per file, read top to bottom, every step safe to run again."""
