"""From plain AMP to a service in NATS.

Rule of this module: a box goes in and its answer comes out, as they are; whoever asks learns
nothing of NATS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typed_amp.box import ASK, BUSY, COMMAND, TIMEOUT, UNHANDLED
from typed_amp.errors import (
    CallTimeoutError,
    ConnectionLostError,
    EncodeError,
    NoRespondersError,
    RemoteAmpError,
    UnhandledCommandError,
)
from typed_amp.router import Router

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typed_amp.box import Box
    from typed_amp.command import CommandType
    from typed_amp.nats_client import NatsClient

__all__ = ["nats_bridge"]


def nats_bridge(client: NatsClient, *, idempotent: Iterable[CommandType[Any, Any]] = ()) -> Router:
    """Make a router that passes every command on to a service in NATS.

    ::

        async with connect_nats("nats://localhost:4222", service="calc") as client:
            async with serve(nats_bridge(client), "localhost", 8000) as server:
                await server.serve_forever()

    Programs that speak AMP, Twisted's for example, so reach the service as if it were one server.
    To admit some and not others, include it in a router with guards.

    Args:
        client: calls the service.
        idempotent: commands of which it is known that they may be carried out twice. The others
            are sent once, whatever they were declared with: boxes don't say.

    Returns:
        The router. It answers with what the service does, and beside that `UNHANDLED` where nobody
        answers, `TIMEOUT` where nobody does in time, `BUSY` where there is no connection to NATS
        and nothing was sent, and `CONNECTION_LOST` where it was lost.
    """
    router = Router()
    names = {command.__amp_signature__().name for command in idempotent}

    @router.fallback
    async def forward(box: Box) -> Box:
        name = box[COMMAND]
        try:
            return await client.call_box(
                name, box, requires_answer=ASK in box, idempotent=name in names
            )
        except NoRespondersError as error:
            raise UnhandledCommandError(
                UNHANDLED.decode(), f"nobody in the cluster answers {_shown(name)}"
            ) from error
        except CallTimeoutError as error:
            raise RemoteAmpError(TIMEOUT.decode(), "nobody answered in time") from error
        except ConnectionLostError as error:
            if error.was_sent:
                reason = "the cluster was lost; whether it was carried out is not known"
                raise RemoteAmpError("CONNECTION_LOST", reason) from error
            reason = "the cluster is not there; it was not carried out, try again later"
            raise RemoteAmpError(BUSY.decode(), reason) from error
        except EncodeError as error:  # too long for NATS, or a change of the protocol
            raise RemoteAmpError("NOT_OVER_NATS", str(error)) from error

    return router


def _shown(name: bytes) -> str:
    return name[:200].decode("utf-8", "backslashreplace")
