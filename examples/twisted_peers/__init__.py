"""Twisted on one side, typed_amp on the other."""
