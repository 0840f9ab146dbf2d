"""Verbs: pure functions that decide. They take frozen values and the time, and return a value of a closed union."""
