"""The smallest example: one command, one server, one client."""
