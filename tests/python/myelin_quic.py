"""A QUIC connection to a router: bytes in and out per stream, and how it ended (section 1 of docs/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.packet import QuicProtocolVersion

from myelin_wire import ALPN

IDLE_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 10.0
CONNECT_TIMEOUT_S = 5.0

CONTROL_STREAM = 0
"""The client's first bidirectional stream; RFC 9000 section 2.1 fixes the numbers."""
PUBLISH_STREAM = 2
"""The client's first unidirectional stream."""
DELIVERY_STREAM = 3
"""The router's first unidirectional stream."""


@dataclass(frozen=True)
class Credentials:
    """Files of the client's certificate and key, and of the authority that signs routers. No certificate: None."""

    ca: Path
    certificate: Path | None
    key: Path | None


@dataclass(frozen=True)
class Close:
    """How a connection ended; `application` is false when QUIC or TLS ended it, not the protocol."""

    code: int
    application: bool
    reason: str

    @property
    def tls_alert(self) -> int | None:
        """The TLS alert that ended the handshake (RFC 9001 section 4.8)."""
        return self.code - 0x100 if not self.application and 0x100 <= self.code < 0x200 else None


class ConnectionEnded(Exception):
    """The connection ended before what was waited for."""

    def __init__(self, close: Close) -> None:
        super().__init__(str(close))
        self.close = close


class Connection(QuicConnectionProtocol):
    """One connection. `on_data(stream, bytes, fin)` is called as bytes arrive; before it is set they are kept."""

    def __init__(self, quic: QuicConnection, stream_handler: object = None) -> None:
        super().__init__(quic)
        self.handshake: asyncio.Future[str | None] = self._loop.create_future()
        self.ended: asyncio.Future[Close] = self._loop.create_future()
        self.received: dict[int, bytearray] = {}
        self.on_data: Callable[[int, bytes, bool], None] = self._keep
        self._keep_alive: asyncio.Task[None] | None = None

    def write(self, stream: int, data: bytes, fin: bool = False) -> None:
        """Appends to a stream, which the first write opens. aioquic buffers it all: the caller bounds it."""
        if not self.ended.done():
            self._quic.send_stream_data(stream, data, end_stream=fin)
            self._transmit_soon()

    def stop(self, stream: int) -> None:
        """Tells the router that nothing more will be read from a stream (STOP_SENDING)."""
        self._quic.stop_stream(stream, 0)
        self._transmit_soon()

    def open_stream(self, unidirectional: bool) -> int:
        """The number of the next stream of a kind; it exists once something is written."""
        return self._quic.get_next_available_stream_id(is_unidirectional=unidirectional)

    async def finish(self, code: int = 0, reason: str = "") -> Close:
        """Closes, if nobody has yet, and returns how the connection ended."""
        self.close(code, reason)
        close = await self.ended
        if self._transport is not None:
            self._transport.close()
        return close

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        super().datagram_received(data, addr)
        # aioquic tells of a close by the other side only after the draining period of three timeouts (RFC 9000, 10.2).
        # How it ended is known at once, and hundreds of tests need not wait.
        if self._quic._state is QuicConnectionState.DRAINING:
            self.quic_event_received(self._quic._close_event)

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.HandshakeCompleted):
            self.handshake.set_result(event.alpn_protocol)
            self._keep_alive = self._loop.create_task(self._ping())
        elif isinstance(event, events.StreamDataReceived):
            self.on_data(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, events.ConnectionTerminated):
            self._end(Close(event.error_code, event.frame_type is None, event.reason_phrase))

    def _end(self, close: Close) -> None:
        if self.ended.done():
            return
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        if not self.handshake.done():
            self.handshake.set_exception(ConnectionEnded(close))
            self.handshake.exception()  # looked at: not everybody waits for it
        self.ended.set_result(close)

    def _keep(self, stream: int, data: bytes, fin: bool) -> None:
        self.received.setdefault(stream, bytearray()).extend(data)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            await self.ping()


async def connect(address: tuple[str, int], credentials: Credentials, *, server_name: str = "localhost",
                  alpn: str | None = ALPN) -> Connection:
    """Sends the first packet. Wait for `handshake`, and for `ended`: with TLS 1.3 a client learns only after its own
    part of the handshake that its certificate was refused."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=[alpn] if alpn else None, server_name=server_name,
        cafile=str(credentials.ca), idle_timeout=IDLE_TIMEOUT_S, supported_versions=[QuicProtocolVersion.VERSION_1])
    if credentials.certificate is not None:
        configuration.load_cert_chain(credentials.certificate, credentials.key)
    loop = asyncio.get_running_loop()
    host, port = address
    family, _, _, _, where = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
    _, connection = await loop.create_datagram_endpoint(
        lambda: Connection(QuicConnection(configuration=configuration)),
        local_addr=("::" if family == socket.AF_INET6 else "0.0.0.0", 0), family=family)
    connection.connect(where)
    return connection
