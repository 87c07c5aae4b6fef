"""A chat: the server calls its clients."""
