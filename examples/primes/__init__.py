"""Primes: work for several processors, spread over child processes."""
