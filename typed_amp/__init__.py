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
from typed_amp.connection_pool import ConnectionPool, connect_pool
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
    NoRespondersError,
    NotAllowedError,
    ProcessEndedError,
    ProtocolViolationError,
    QueueFullError,
    RemoteAmpError,
    StartTLSError,
    TooLongError,
    UnhandledCommandError,
    UnknownRemoteError,
    WorkerStartError,
)
from typed_amp.inherited import serve_sockets
from typed_amp.large import Large
from typed_amp.limits import Limits
from typed_amp.nats_bridge import nats_bridge
from typed_amp.nats_client import NatsClient, connect_nats
from typed_amp.nats_options import NatsOptions
from typed_amp.nats_service import NatsService, serve_nats
from typed_amp.options import ConnectionOptions
from typed_amp.peer_credentials import PeerCredentials
from typed_amp.planning import Key
from typed_amp.pool_state import PoolState, ServerState
from typed_amp.processes import ProcessConnection, connect_process
from typed_amp.reconnecting import Client
from typed_amp.router import Router
from typed_amp.server import Server, run, serve, serve_unix
from typed_amp.stdio import serve_fds, serve_stdio
from typed_amp.transitions import StartTLS, SwitchProtocol
from typed_amp.worker_pool import WorkerPool
from typed_amp.worker_state import PoolCounters, WorkerState, WorkerStatus

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
    "ConnectionPool",
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
    "NatsClient",
    "NatsOptions",
    "NatsService",
    "NoRespondersError",
    "NotAllowedError",
    "PeerCredentials",
    "PoolCounters",
    "PoolState",
    "ProcessConnection",
    "ProcessEndedError",
    "ProtocolViolationError",
    "QueueFullError",
    "RemoteAmpError",
    "Router",
    "Server",
    "ServerState",
    "StartTLS",
    "StartTLSError",
    "SwitchProtocol",
    "TooLongError",
    "UnhandledCommandError",
    "UnknownRemoteError",
    "WorkerPool",
    "WorkerStartError",
    "WorkerState",
    "WorkerStatus",
    "connect",
    "connect_nats",
    "connect_pool",
    "connect_process",
    "connect_unix",
    "encode_box",
    "nats_bridge",
    "remaining_time",
    "run",
    "serve",
    "serve_fds",
    "serve_nats",
    "serve_sockets",
    "serve_stdio",
    "serve_unix",
]
