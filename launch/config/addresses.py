"""Addresses of services that a command is given: whether one has the right form, and whether anything answers there."""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

CONNECT_S = 5.0


def problem_of(url: str, *, connect: bool = True) -> str | None:
    """Why no service can be reached at `url`, or None. connect: also opens and closes a connection, for at most CONNECT_S seconds."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        return f"is no address: {error}"
    if parts.scheme not in ("http", "https") or not host:
        return "is no address: it must be like http://host:port"
    through = urllib.request.getproxies().get(parts.scheme)
    if not connect or (through and not urllib.request.proxy_bypass(host)):  # only the proxy may know the host
        return None
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except socket.gaierror:
        return f"cannot be reached: the name {host} is not known"
    except TimeoutError:
        return f"cannot be reached: {host} does not answer within {CONNECT_S:g} s"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
    return None
