"""typed_amp against Twisted itself: another process, real sockets, either side calling."""
