"""The sandbox as a child process: reads its options as one JSON line, and prints its address as another.

It ends on request and when standard input ends, so it never outlives the process that started it.
"""

from __future__ import annotations

import asyncio
import json
import sys

from worker.sandbox.options import OptionsError, SandboxOptions
from worker.sandbox.server import Address, serve

WRONG_USE = 2


async def _run(options: SandboxOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)

    async def _until_parent_ends() -> None:
        await reader.read()
        stop.set()

    watcher = loop.create_task(_until_parent_ends())
    try:
        await serve(options, ready=_announce, stop=stop)
    finally:
        watcher.cancel()


def _announce(address: Address) -> None:
    sys.stdout.write(json.dumps(address.to_json()) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run until asked to stop; return the exit status."""
    try:
        # Unbuffered, so that nothing beyond the line is read: the watcher needs to see the end.
        with open(0, "rb", buffering=0, closefd=False) as stdin:  # a descriptor, not a path
            options = SandboxOptions.from_json(json.loads(stdin.readline() or "{}"))
        asyncio.run(_run(options))
    except (OptionsError, OSError) as error:
        sys.stderr.write(f"sandbox: {error}\n")
        return WRONG_USE
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
