"""The REST API: intentions are recorded here, nothing acts."""
