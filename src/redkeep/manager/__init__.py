"""The manager: looks at what is reported, decides, and runs operations under leases."""
