"""A TLS stream that says BlockingIOError where ssl has errors of its own."""

from __future__ import annotations

import select
import socket
import ssl

from tinydancer_fdw.streams import Untrusted


class SecureStream:
    """A non-blocking TLS client whose server's certificate and host name are checked."""

    def __init__(self, stream: socket.socket, host: str, sslrootcert: str) -> None:
        try:
            context = ssl.create_default_context(cafile=sslrootcert)
        except OSError as error:
            reason = f'option sslrootcert "{sslrootcert}": {error.strerror}'
            raise OSError(error.errno, reason) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python 3.13 refuses authorities without a keyUsage extension, as small ones often are; no
        # Python before it does, nor the native front door.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._socket = context.wrap_socket(
            stream, server_hostname=host, do_handshake_on_connect=False
        )

    def handshake(self) -> int | None:
        """Goes on with the handshake: what to wait for, or None when it is done.

        Raises Untrusted, or another OSError.
        """
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return select.POLLIN
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(
                error.errno, f"certificate verify failed: {error.verify_message}"
            ) from None
        return None

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def send(self, data: memoryview) -> int:
        """Sends some of `data`, and says how much."""
        try:
            return self._socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv(self, size: int) -> bytes:
        """All that is decrypted, about `size` bytes; none at the end of the stream."""
        try:
            data = self._socket.recv(size)
            while self._socket.pending() and len(data) < size:  # no poll would tell of these
                data += self._socket.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        return data

    def close(self) -> None:
        """Closes it."""
        self._socket.close()
