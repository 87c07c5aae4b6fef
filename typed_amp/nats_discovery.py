"""How others find a service in NATS: the subjects of NATS micro.

Rule of this module: what it answers is what any tool of NATS understands, to the letter of NATS's
ADR-32. nats-py has a service of its own that speaks it, but that one runs its handlers one after
the other.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter

from typed_amp.raw import RAW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from typed_amp.nats_requests import Endpoint
    from typed_amp.router import Responder

__all__ = ["Discovery", "check_metadata", "check_version", "metadata_of"]

_PREFIX: Final = "$SRV"
_TYPE: Final = "io.nats.micro.v1"

_SCHEMAS: Final = ("command_schema", "answer_schema")

_NUMBER: Final = r"(0|[1-9]\d*)"
_PRE_RELEASE: Final = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_BUILD: Final = r"[0-9a-zA-Z-]+"
_VERSION: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+{_BUILD}(\.{_BUILD})*)?",
    re.ASCII,
)


def check_version(version: str) -> None:
    """Refuse a version that NATS micro doesn't allow.

    Raises:
        ValueError: it is none.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no version as NATS micro wants it, such as 1.0.2")


def check_metadata(metadata: Mapping[Any, Any]) -> None:
    """Refuse metadata that NATS micro doesn't allow.

    Raises:
        TypeError: not all of it are texts.
    """
    for key, text in metadata.items():
        if not (isinstance(key, str) and isinstance(text, str)):
            raise TypeError(f"metadata are texts by their names, and {key!r}: {text!r} is not one")


def metadata_of(responder: Responder) -> dict[str, str]:
    """Say what there is to know of a command, in texts, as NATS micro wants it.

    Its name; JSON schemas of the command and of its answer, where they can be made; the codes of
    its errors; whether it is answered, and whether it is idempotent.
    """
    signature = responder.signature
    if signature is RAW:
        return {"protocol": "amp", "command": "*"}
    told = {
        "protocol": "amp",
        "command": signature.title,
        "command_schema": _schema(signature.arguments.model, "validation"),
        "answer_schema": _schema(signature.answer.model, "serialization")
        if signature.answer
        else "null",
        "errors": json.dumps([code.decode() for code in signature.error_types]),
        "requires_answer": json.dumps(signature.requires_answer),
        "idempotent": json.dumps(signature.idempotent),
    }
    return {key: text for key, text in told.items() if text}


def _schema(model: type, mode: Any) -> str:
    try:
        return json.dumps(TypeAdapter(model).json_schema(mode=mode), separators=(",", ":"))
    except Exception:  # types that JSON has nothing for, or users' own that know no schema
        return ""


class Discovery:
    """Answers who asks for a service, for its commands, and for how it does.

    Args:
        client: nats-py's.
        service: the service's name.
        instance: a name of this program's, that no other has.
        version: the service's version.
        description: what it is, for people.
        metadata: what else is told of it.
        queue: its queue group.
        endpoints: where its commands are asked for.
    """

    def __init__(
        self,
        client: Client,
        *,
        service: str,
        instance: str,
        version: str,
        description: str,
        metadata: Mapping[str, str],
        queue: str,
        endpoints: Sequence[Endpoint],
    ) -> None:
        self._client = client
        self._identity = {
            "name": service,
            "id": instance,
            "version": version,
            "metadata": dict(metadata),
        }
        self._description = description
        self._queue = queue
        self._endpoints = endpoints
        self._started = datetime.now(UTC)
        self._subscriptions: list[Any] = []

    async def begin(self) -> None:
        """Answer from now on."""
        service, instance = self._identity["name"], self._identity["id"]
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for rest in ("", f".{service}", f".{service}.{instance}"):
                subject = f"{_PREFIX}.{verb}{rest}"
                self._subscriptions.append(await self._client.subscribe(subject, cb=answer))

    async def end(self) -> None:
        """Be found no more."""
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        self._subscriptions.clear()

    async def _ping(self, message: Msg) -> None:
        await self._answer(message, {"type": f"{_TYPE}.ping_response", **self._identity})

    async def _info(self, message: Msg) -> None:
        # A service of hundreds of commands can't tell all their schemas in one message.
        for left_out in ((), _SCHEMAS):
            endpoints = [
                {
                    "name": each.name,
                    "subject": each.subject,
                    "queue_group": self._queue,
                    "metadata": {k: v for k, v in each.metadata.items() if k not in left_out},
                }
                for each in self._endpoints
            ]
            if await self._answer(
                message,
                {
                    "type": f"{_TYPE}.info_response",
                    **self._identity,
                    "description": self._description,
                    "endpoints": endpoints,
                },
            ):
                return

    async def _stats(self, message: Msg) -> None:
        endpoints = [
            {
                "name": each.name,
                "subject": each.subject,
                "queue_group": self._queue,
                "num_requests": each.requests,
                "num_errors": each.errors,
                "last_error": each.last_error,
                "processing_time": each.nanoseconds,
                "average_processing_time": each.nanoseconds // max(1, each.requests),
                "data": {},  # nothing of its own: some readers want the key, and others an object
            }
            for each in self._endpoints
        ]
        await self._answer(
            message,
            {
                "type": f"{_TYPE}.stats_response",
                **self._identity,
                "started": self._started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "endpoints": endpoints,
            },
        )

    async def _answer(self, message: Msg, value: object) -> bool:
        """Answer, if somebody wants to know. False: it is too long."""
        data = json.dumps(value, separators=(",", ":")).encode()
        if len(data) > self._client.max_payload:
            return False
        if message.reply and self._client.is_connected:
            await self._client.publish(message.reply, data)
        return True
