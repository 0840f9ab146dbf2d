"""Drivers of backends. Others plug in by an entry point of the group `redkeep.backends`; see `ports.BackendDriver`."""
