"""A TCP server over IPv6 and IPv4, where the machine has both."""

from __future__ import annotations

import socket
from socketserver import TCPServer


class DualStackServer(TCPServer):
    """To be named before the server that it makes so."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(
            self
        )  # HTTPServer's own asks the name server for this machine's name, which may take long
