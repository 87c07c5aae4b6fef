"""The descriptors of one connection, on their way out and on their way in.

Rule of this module: each descriptor has one owner at any time, and none is left without.

A box names descriptors by their numbers in the order in which the connection carried them, and they
arrive no later than the box does. Peers number them as they write the boxes (Twisted's
`_DescriptorExchanger` does), so what a box leaves out that names a later one is nobody's.
"""

from __future__ import annotations

import os
from logging import WARNING
from typing import TYPE_CHECKING, Any

from typed_amp.descriptors import close_descriptors, refuse_to_attach
from typed_amp.errors import DecodeError, EncodeError
from typed_amp.log import log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from typed_amp.box import Box
    from typed_amp.connection import Connection
    from typed_amp.plan import Plan

__all__ = ["DescriptorExchange"]


class DescriptorExchange:
    """Sends descriptors, and keeps those that came until a box claims them.

    Args:
        connection: whose they are, for the log.
        limit: how many may wait to be claimed. The oldest are closed beyond that.
    """

    def __init__(self, connection: Connection[Any], limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self._send: Callable[[int], None] | None = None
        self._flush: Callable[[], None]
        self._sent = 0
        self._received = 0
        self._unclaimed: dict[int, int] = {}

    def begin(self, transport: asyncio.Transport, flush: Callable[[], None]) -> None:
        """There is a transport to send by; maybe one that carries no descriptors.

        Args:
            transport: the transport.
            flush: hands it what was written before.
        """
        self._send = getattr(transport, "send_descriptor", None)
        self._flush = flush

    def encode(self, encode: Callable[..., bytes], value: Any, head: bytes) -> bytes:
        """Write a box with descriptors in it, and queue those; the box must be next to be written.

        Raises:
            EncodeError: a value can't be written, a descriptor is none, the transport carries
                none, or this process may open no more.
        """
        batch: list[int] = []

        def attach(descriptor: int) -> int:
            try:
                os.fstat(descriptor)
            except (OSError, OverflowError, TypeError) as error:
                raise EncodeError(f"it is no open descriptor ({error})") from None
            batch.append(descriptor)
            return self._sent + len(batch) - 1

        if self._send is None:
            return encode(value, head, refuse_to_attach)
        data = encode(value, head, attach)
        if batch:
            self._flush()  # or else they would all go before the first box of this turn
        for descriptor in batch:
            try:
                self._send(descriptor)
            except OSError as error:  # those before it go all the same, and are nobody's
                raise EncodeError(f"a descriptor can't be sent: {error}") from error
            self._sent += 1
        return data

    def received(self, descriptors: Sequence[int]) -> None:
        """Take over descriptors that came, in their order."""
        for descriptor in descriptors:
            self._unclaimed[self._received] = descriptor
            self._received += 1

    def close_excess(self) -> None:
        """Close the oldest of those that wait beyond the limit.

        To be called when the bytes are read that came along with them, since those may claim them.
        """
        excess = len(self._unclaimed) - self._limit
        if excess > 0:
            limit = "max_unclaimed_descriptors"
            told = f"closing %d descriptors that no command has claimed (Limits.{limit})"
            log(WARNING, "descriptors", self._connection, told, excess, limit=limit)
            for number in list(self._unclaimed)[:excess]:
                self._discard(number)

    def decode(self, plan: Plan, box: Box, *, is_latest: bool) -> tuple[Any, list[int]]:
        """Read a box with descriptors in it.

        Args:
            plan: reads it.
            box: the box.
            is_latest: whether all boxes that came before were read. What they left is closed.

        Returns:
            The value, and the descriptors in it, which are the caller's now.

        Raises:
            DecodeError: a value can't be read, or no descriptor came for a field.
        """
        claimed: list[int] = []
        latest = -1

        def claim(number: int) -> int:
            nonlocal latest
            if number not in self._unclaimed:
                reason = "no descriptor came for it"
                if number < self._received:
                    reason += (
                        ", or it is taken, or was closed since more waited than"
                        f" Limits.max_unclaimed_descriptors allows, {self._limit}"
                    )
                raise DecodeError(reason)
            latest = max(latest, number)
            claimed.append(self._unclaimed.pop(number))
            return claimed[-1]

        try:
            value = plan.decode(box, claim)
        except DecodeError:
            close_descriptors(claimed)
            plan.skip_descriptors(box, self._discard)
            raise
        if is_latest:
            for number in [number for number in self._unclaimed if number < latest]:
                self._discard(number)
        return value, claimed

    def close(self) -> None:
        """The connection is gone: close what nobody claimed."""
        close_descriptors(self._unclaimed.values())
        self._unclaimed.clear()

    def _discard(self, number: int) -> None:
        if number in self._unclaimed:
            close_descriptors([self._unclaimed.pop(number)])
