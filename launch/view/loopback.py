"""Where the viewer listens: on loopback, behind a word that other users of the machine do not know."""

from __future__ import annotations

import secrets
import socket

from corewarding.dataflow.errors import UserError

HOST = "127.0.0.1"


def new_word() -> str:
    """For the address of one viewer."""
    return secrets.token_urlsafe(16)


def address_of(port: int, word: str) -> str:
    return f"http://{HOST}:{port}/{word}/"


def listening(port: int) -> socket.socket:
    """A socket on loopback. UserError if the port is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise UserError(f"--port {port}: {error.strerror}; choose another one, or leave it out for any") from error
    return found
