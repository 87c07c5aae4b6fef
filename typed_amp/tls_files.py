"""TLS contexts made of files that a user names.

Rule of this module: it says which file is wrong, and how; OpenSSL doesn't.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TLSFileTrouble", "client_context", "server_context"]


class TLSFileTrouble(Exception):  # noqa: N818 - it is the user's, not the program's
    """A file is not what it should be; the text says which and why."""


def server_context(certificate: str, key: str | None, authority: str | None) -> ssl.SSLContext:
    """Make a server's context.

    Args:
        certificate: the server's certificate, and those between it and its authority's.
        key: its private key, if that isn't in the same file.
        authority: the certificates of those who sign clients' certificates. If it is given, clients
            must show one.

    Raises:
        TLSFileTrouble: a file can't be read or used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_certificate(context, certificate, key)
    if authority is not None:
        _load_authority(context, authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    authority: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    """Make a client's context.

    Args:
        authority: the certificates of those who sign servers' certificates; the system's, if it is
            None.
        certificate: the client's certificate, if it is to show one.
        key: its private key, if that isn't in the same file.

    Raises:
        TLSFileTrouble: a file can't be read or used.
    """
    context = ssl.create_default_context()
    if authority is not None:
        # Who names an authority trusts that one, not all the others as well.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authority(context, authority)
    if certificate is not None:
        _load_certificate(context, certificate, key)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    def refuse_to_ask() -> str:
        raise TLSFileTrouble(
            f"the private key {key or certificate} is encrypted, and nobody is there to be asked"
            " for its password; give one that isn't"
        )

    what = f"the certificate {certificate}"
    if key is not None:
        what += f" with the private key {key}"
    # OpenSSL says nothing of the files' names.
    for path in filter(None, (certificate, key)):
        _check_readable(path)
    _load(what, lambda: context.load_cert_chain(certificate, key, password=refuse_to_ask))


def _load_authority(context: ssl.SSLContext, authority: str) -> None:
    _check_readable(authority)
    what = f"{authority} as the certificates of authorities"
    _load(what, lambda: context.load_verify_locations(authority))


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):  # noqa: PTH123 - a str is all that is at hand
            pass
    except OSError as error:
        raise TLSFileTrouble(f"can't read {path}: {error.strerror}") from error


def _load(what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            reason = "they don't belong together"
        elif isinstance(error, ssl.SSLError):
            reason = f"not in PEM, or not the right kind of thing ({error.reason or error})"
        else:
            reason = str(error)
        raise TLSFileTrouble(f"can't use {what}: {reason}") from error
