"""A Redis-protocol server in pure Python, for machines that have no other: fakeredis's, in a process of its own."""

from __future__ import annotations

import sys
import threading


def main() -> None:
    """Serve on the loopback port that the first argument names, until terminated."""
    from fakeredis import TcpFakeServer  # noqa: PLC0415 - an extra; only this process needs it

    server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis")
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
