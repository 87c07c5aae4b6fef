"""Errors that travel."""
