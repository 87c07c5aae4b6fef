"""A cluster of NATS under load, of which a node and a responder are killed: `make demo-cluster`."""
