"""Fetching a file over HTTP(S), to be believed only when its sha256 is right.

The recipe knows the sha256, so a mirror, a proxy or a plain http address can withhold the file
but not change it.  Failures are told by what they mean to whoever sits in front of it: no network,
nobody there, not found, not the file it should be.

Library: urllib3 (pooling, redirects, retries, TLS with the system's certificates), imported here
and only here, for its import takes longer than starting ten containers.
"""

from __future__ import annotations

from hashlib import sha256

from minicontainer.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    import urllib3

CHUNK = 1 << 18
MAX_BYTES = 2 << 30
ATTEMPTS = 3
CONNECT_SECONDS = 15
READ_SECONDS = 30
BACKOFF_SECONDS = 0.5


def fetch(url: str, into: IO[bytes], digest: str, max_bytes: int = MAX_BYTES) -> None:
    """Fetch ``url`` and verify that it is ``digest`` (sha256:...); ``into`` is rewound after.

    http_proxy, https_proxy and no_proxy are followed.  Raises ImageError, and what is in ``into``
    then is worth nothing.
    """
    import urllib3

    for attempt in range(1, ATTEMPTS + 1):
        into.seek(0)
        into.truncate()
        try:
            found = _fetch_once(url, into, max_bytes)
            break
        except (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError) as error:
            # The connection broke in the middle, or went silent: a second attempt may do better.
            if attempt == ATTEMPTS:
                raise ImageError(f"{url}: the connection broke {attempt} times ({error})") from None
        except urllib3.exceptions.HTTPError as error:
            raise ImageError(f"{url}: {explain(error)}") from None
    if found != digest:
        raise ImageError(
            f"{url}: its content is not what it should be, and was thrown away: "
            f"expected {digest}, found {found}",
            "the mirror is out of step, or something on the way changes files",
        )
    into.seek(0)


def _fetch_once(url: str, into: IO[bytes], max_bytes: int) -> str:
    """One attempt; the digest of what came.  Raises urllib3's errors, and ImageError."""
    import urllib3

    retries = urllib3.Retry(
        connect=1, read=False, redirect=5, status=2, other=0, backoff_factor=BACKOFF_SECONDS,
        status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False,
    )  # fmt: skip
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    hashed, count = sha256(), 0
    with _pool(url) as pool:
        answer = pool.request(
            "GET", url, retries=retries, timeout=timeout, preload_content=False,
            # the archive as it is: a server that compresses it once more would change its digest
            headers={"User-Agent": "minicontainer", "Accept-Encoding": "identity"},
        )  # fmt: skip
        try:
            if answer.status != 200:
                raise ImageError(f"{url}: {explain_status(answer.status)}")
            for data in answer.stream(CHUNK, decode_content=False):
                count += len(data)
                if count > max_bytes:
                    raise ImageError(f"{url}: more than {max_bytes} bytes: given up")
                hashed.update(data)
                into.write(data)
        finally:
            answer.release_conn()
    into.flush()
    return "sha256:" + hashed.hexdigest()


def _pool(url: str) -> urllib3.PoolManager:
    """Through the proxy that the environment names for this address, if it names one."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    import urllib3

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"{url}: not an address that begins with https:// or http://")
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy)
    return urllib3.PoolManager()


def explain(error: Exception) -> str:
    """What an exception of urllib3 means, in a sentence."""
    from urllib3 import exceptions

    reason = getattr(error, "reason", None) or error
    if isinstance(reason, exceptions.ProxyError):
        return f"the proxy that the environment names does not serve: {reason.original_error}"
    if isinstance(reason, exceptions.NameResolutionError):
        return "the name of the host cannot be resolved: no network, or no DNS"
    if isinstance(reason, exceptions.NewConnectionError):
        cause = reason.__cause__ or reason
        return f"no connection to the host: {getattr(cause, 'strerror', None) or cause}"
    if isinstance(reason, exceptions.ConnectTimeoutError):
        return "the host does not answer: no network, or a firewall on the way"
    if isinstance(reason, exceptions.SSLError):
        return f"the host cannot prove who it is (TLS): {reason}"
    return str(reason)


def explain_status(status: int) -> str:
    """What an HTTP status other than 200 means here."""
    meaning = {
        401: "the server wants a login",
        403: "the server refuses",
        404: "the server has no such file: the version may have moved, or the mirror is incomplete",
        407: "the proxy wants a login",
        429: "too many requests: try again later",
    }
    return f"HTTP {status}: {meaning.get(status, 'the server failed')}"
