"""Redkeep: a managed Redis for your own machines."""

__version__ = "0.1.0"
