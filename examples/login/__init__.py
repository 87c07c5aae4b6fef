"""A login: nothing else until then."""
