from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from tests.example_commands import Repeat, Text, example_router
from tests.peers import HOST, port_of
from typed_amp import connect, serve
from typed_amp.tls_files import TLSFileTrouble, client_context, server_context


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with an authority, and a certificate and a key for each side."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    for name in ("localhost", "ann@example.org"):
        certificate = authority.issue_cert(name)
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.both")
    return tmp_path


async def test_both_sides_know_each_other(files: Path) -> None:
    authority = str(files / "authority.pem")
    server = server_context(str(files / "localhost.pem"), str(files / "localhost.key"), authority)
    client = client_context(authority, str(files / "ann@example.org.both"), None)
    async with serve(example_router(), HOST, 0, ssl=server) as serving:
        async with connect("localhost", port_of(serving), ssl=client) as connection:
            assert await connection.call(Repeat(text="a")) == Text(text="a")
            assert serving.connections[0].peer_certificate is not None
        # Neither is content with less.
        with pytest.raises(ssl.SSLError):
            await connect("localhost", port_of(serving), ssl=client_context(None, None, None))
        nameless = client_context(authority, None, None)
        with pytest.raises((OSError, ConnectionError)):
            async with connect("localhost", port_of(serving), ssl=nameless) as connection:
                await connection.call(Repeat(text="a"))


@pytest.mark.parametrize(
    ("certificate", "key", "authority", "told"),
    [
        ("missing.pem", None, None, "can't read .*missing.pem: No such file"),
        ("localhost.pem", "missing.key", None, "can't read .*missing.key: No such file"),
        ("localhost.pem", "ann@example.org.key", None, "they don't belong together"),
        ("localhost.key", None, None, "can't use the certificate .*localhost.key: not in PEM"),
        ("localhost.pem", None, None, "can't use the certificate .*localhost.pem: not in PEM"),
        ("localhost.both", None, "localhost.key", "localhost.key as the certificates of auth"),
        ("localhost.both", None, "nowhere", "can't read .*nowhere"),
    ],
)
def test_the_file_that_is_wrong_is_told(
    files: Path, certificate: str, key: str | None, authority: str | None, told: str
) -> None:
    def path(name: str | None) -> str | None:
        return None if name is None else str(files / name)

    with pytest.raises(TLSFileTrouble, match=told):
        server_context(str(files / certificate), path(key), path(authority))


def test_nobody_is_asked_for_a_password(files: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((files / "localhost.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (files / "locked.key").write_bytes(encrypted)
    with pytest.raises(TLSFileTrouble, match=r"the private key .*locked.key is encrypted"):
        server_context(str(files / "localhost.pem"), str(files / "locked.key"), None)
