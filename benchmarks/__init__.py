"""Ours against what people would use instead, in the same run on the same machine: `./run bench NAME`."""
