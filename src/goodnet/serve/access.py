"""Who may ask: an API key, compared in constant time, and no pages of other sites."""

import base64
import binascii
import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.requests import Request

from goodnet.serve.refusals import Refused

KEY_HEADER = "X-API-Key"
_READS = ("GET", "HEAD", "OPTIONS")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check(request: Request, key: str | None) -> None:
    """Refuse a request without the key, where there is one, and what a page of another site makes a browser send.

    Without a key only this machine is asked, under a name of its own: a page elsewhere, whose name was made to lead
    here, would otherwise read what is in quarantine.
    """
    host = request.headers.get("host", "")
    if key is None and not is_loopback(_name(host)):
        raise Refused(403, "host", "without a key this service answers to localhost and 127.0.0.1 alone")
    origin = request.headers.get("origin")
    if request.method not in _READS and origin is not None and urlsplit_or_none(origin) != host:
        raise Refused(403, "origin", "pages of other sites may not send anything here")
    if key is not None and not secrets.compare_digest(_given(request).encode(), key.encode()):
        challenge = {"WWW-Authenticate": 'Basic realm="goodnet", charset="UTF-8"'}
        raise Refused(401, "key", f"send the key in the header {KEY_HEADER}, or as the password of a login", challenge)


def urlsplit_or_none(origin: str) -> str | None:
    """Host and port of a URL, None where it is none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.rsplit(":", 1)[0] if not host.endswith("]") else host


def _given(request: Request) -> str:
    """The key that came with a request, in one of three places; empty for none."""
    if KEY_HEADER in request.headers:
        return request.headers[KEY_HEADER]
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
