"""The demo: calls of every kind, and beside each what goes over the wire. Run it: `make demo`."""
