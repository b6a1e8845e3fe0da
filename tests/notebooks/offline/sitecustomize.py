"""Put on a kernel's PYTHONPATH, keeps it off the network: only this machine itself can be reached."""

import ipaddress
import socket


def _local(host):
    if host in (None, "", b"", "localhost", b"localhost", socket.gethostname()):
        return True
    name = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse(host):
    raise ConnectionError(f"the course works offline, but something wants to reach {host}")


def _guard_socket(method):
    original = getattr(socket.socket, method)

    def guarded(self, *arguments):
        # sendto and sendmsg have the address last, and only where the socket is not connected.
        address = arguments[-1]
        if (
            self.family in (socket.AF_INET, socket.AF_INET6)
            and isinstance(address, tuple)
            and not _local(address[0])
        ):
            _refuse(address[0])
        return original(self, *arguments)

    setattr(socket.socket, method, guarded)


def _guard_lookup(function):
    original = getattr(socket, function)

    def guarded(host, *arguments, **options):
        if not _local(host):
            _refuse(host)
        return original(host, *arguments, **options)

    setattr(socket, function, guarded)


for _method in ("connect", "connect_ex", "sendto", "sendmsg"):
    _guard_socket(_method)
for _function in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    _guard_lookup(_function)
