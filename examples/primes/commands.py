"""What parent and children agree on."""

from pydantic import BaseModel

from typed_amp import Command


class Count(BaseModel):
    primes: int


class CountPrimes(Command[Count]):
    """Count the primes from `start` on, below `stop`."""

    start: int
    stop: int


class Crash(Command):
    """End without a word, as a program with a bug might."""
