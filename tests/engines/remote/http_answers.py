"""Answers of upstreams, byte for byte: some that are HTTP, and many that are not."""

from collections.abc import Mapping

from tests.upstream import head

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = OK + b"content-length: 5\r\n\r\nhello"

# What is well-formed, and whether its connection may be used again.
WELL_FORMED: Mapping[str, tuple[bytes, bool]] = {
    "with a length": (WHOLE, True),
    "empty": (OK + b"content-length: 0\r\n\r\n", True),
    "in chunks": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", True),
    "with chunk extensions": (CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', True),
    "with trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nexpires: 0\r\nx: y\r\n\r\n", True),
    "until the connection ends": (OK + b"content-type: text/plain\r\n\r\nhello", False),
    "with connection: close": (OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", False),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", False),
    "of HTTP/1.0, kept": (
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 5\r\n\r\nhello",
        True,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", True),
    "after interim ones": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + WHOLE,
        True,
    ),
    "without a reason": (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", True),
    "with empty headers": (OK + b"a:\r\nb: \r\nContent-Length:5\r\nx-c:   d  \r\n\r\nhello", True),
    "a redirect": (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", True),
}

BROKEN: Mapping[str, tuple[bytes, str]] = {
    "nothing": (b"", "closed the connection before"),
    "half a status line": (b"HTTP/1.1 20", "closed the connection before"),
    "half a head": (OK + b"content-le", "closed the connection before"),
    "half a body": (OK + b"content-length: 9\r\n\r\nhello", "broke off"),
    "half a chunk": (CHUNKED + b"9\r\nhello", "broke off"),
    "no last chunk": (CHUNKED + b"5\r\nhello\r\n", "broke off"),
    "half a trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nx: y", "broke off"),
    "only an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n", "closed the connection before"),
    "interim answers without an end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + WHOLE, "not HTTP"),
    "an interim answer with a body": (
        b"HTTP/1.1 150 Odd\r\ncontent-length: 2\r\n\r\nhi" + WHOLE,
        "not HTTP",
    ),
    "another protocol": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n" + WHOLE,
        "not HTTP",
    ),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
    "HTTP/1.2": (b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "two digits of status": (b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "status 099": (b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "two lengths": (OK + b"content-length: 5\r\ncontent-length: 2\r\n\r\nhello", "not HTTP"),
    "a list of lengths": (OK + b"content-length: 5, 5\r\n\r\nhello", "not HTTP"),
    "a negative length": (OK + b"content-length: -1\r\n\r\nhello", "not HTTP"),
    "an endless length": (OK + b"content-length: %d\r\n\r\nhello" % 10**30, "not HTTP"),
    "a length and chunks": (
        OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "chunks and a length": (
        OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "another coding": (OK + b"transfer-encoding: gzip\r\n\r\nhello", "not HTTP"),
    "two codings": (
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "two codings in two lines": (
        OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "chunks, then not": (
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
        "not HTTP",
    ),
    "no size of a chunk": (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", "not HTTP"),
    "a huge chunk": (CHUNKED + b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n", "not HTTP"),
    "a chunk that is longer than its size": (CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", "not HTTP"),
    "a folded header": (OK + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "a space before a colon": (OK + b"content-length : 0\r\n\r\n", "not HTTP"),
    "NUL in a header": (OK + b"a: b\0c\r\ncontent-length: 0\r\n\r\n", "not HTTP"),
    "bare line feeds": (b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", "not HTTP"),
    "a huge header": (head(x="y" * 70_000, content_length=2) + b"{}", "not HTTP"),
    "a header without an end": (OK + b"x: " + b"y" * 1_000_000, "not HTTP"),
    "a name without an end": (OK + b"x" * 1_000_000, "not HTTP"),
    "many headers": (
        OK + b"".join(b"x-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
        "not HTTP",
    ),
    "trailers without an end": (CHUNKED + b"0\r\n" + b"x: y\r\n" * 20_000, "not HTTP"),
    "a length among the trailers": (
        CHUNKED + b"5\r\nhello\r\n0\r\ncontent-length: 3\r\n\r\n",
        "not HTTP",
    ),
    "an extension without an end": (CHUNKED + b"5;" + b"x" * 1_000_000, "not HTTP"),
}
