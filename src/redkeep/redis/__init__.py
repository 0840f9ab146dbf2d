"""Redis itself: its configuration as text, its versions, and typed administration."""
