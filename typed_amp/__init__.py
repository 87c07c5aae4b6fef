"""AMP, the Asynchronous Messaging Protocol, for asyncio: typed to the last byte."""

from typed_amp.backoff import Backoff
from typed_amp.box import Box, BoxReader, encode_box
from typed_amp.client import connect, connect_unix
from typed_amp.client_state import ClientState, ClientStatus
from typed_amp.codecs import Codec, Json
from typed_amp.command import Command
from typed_amp.command_error import CommandError
from typed_amp.compiled import COMPILED
from typed_amp.connection import Connection
from typed_amp.counters import Counters
from typed_amp.deadlines import remaining_time
from typed_amp.descriptors import Descriptor
from typed_amp.details import ErrorDetail
from typed_amp.errors import (
    AmpError,
    CallTimeoutError,
    ConnectionLostError,
    DecodeError,
    DefinitionError,
    EncodeError,
    InvalidArgumentsError,
    NotAllowedError,
    ProcessEndedError,
    ProtocolViolationError,
    RemoteAmpError,
    StartTLSError,
    TooLongError,
    UnhandledCommandError,
    UnknownRemoteError,
)
from typed_amp.inherited import serve_sockets
from typed_amp.large import Large
from typed_amp.limits import Limits
from typed_amp.options import ConnectionOptions
from typed_amp.peer_credentials import PeerCredentials
from typed_amp.planning import Key
from typed_amp.processes import ProcessConnection, connect_process
from typed_amp.reconnecting import Client
from typed_amp.router import Router
from typed_amp.server import Server, run, serve, serve_unix
from typed_amp.stdio import serve_fds, serve_stdio
from typed_amp.transitions import StartTLS, SwitchProtocol

__all__ = [
    "COMPILED",
    "AmpError",
    "Backoff",
    "Box",
    "BoxReader",
    "CallTimeoutError",
    "Client",
    "ClientState",
    "ClientStatus",
    "Codec",
    "Command",
    "CommandError",
    "Connection",
    "ConnectionLostError",
    "ConnectionOptions",
    "Counters",
    "DecodeError",
    "DefinitionError",
    "Descriptor",
    "EncodeError",
    "ErrorDetail",
    "InvalidArgumentsError",
    "Json",
    "Key",
    "Large",
    "Limits",
    "NotAllowedError",
    "PeerCredentials",
    "ProcessConnection",
    "ProcessEndedError",
    "ProtocolViolationError",
    "RemoteAmpError",
    "Router",
    "Server",
    "StartTLS",
    "StartTLSError",
    "SwitchProtocol",
    "TooLongError",
    "UnhandledCommandError",
    "UnknownRemoteError",
    "connect",
    "connect_process",
    "connect_unix",
    "encode_box",
    "remaining_time",
    "run",
    "serve",
    "serve_fds",
    "serve_sockets",
    "serve_stdio",
    "serve_unix",
]
