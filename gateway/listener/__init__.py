"""HTTP/1.1 on a socket: what uvicorn does, and the limits that it does not have.

`connection.py` bounds what one client may send, and how long it may take;
`server.py` runs the loop, looks after the connections and stops when told. What
is in a request that got through, `gateway/middleware.py` decides.
"""

from gateway.listener.connection import Connection, ConnectionLimits
from gateway.listener.server import Server, allow_open_files, server_of

__all__ = ["Connection", "ConnectionLimits", "Server", "allow_open_files", "server_of"]
