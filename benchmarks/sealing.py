"""What sealing costs: a pair sealed and opened, beside the same without derived keys and with Fernet, in one run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

from cryptography.fernet import Fernet
from rich.console import Console
from rich.table import Table

from worker.vault import Keyring, PairPlace, Sealer, Token

TOKEN_BYTES = 192
TURNS = 400
"""Many short turns: on a busy machine some of them are left in peace."""
PLACE = PairPlace(creator_id="creator-0123456789", consent=1, generation=12)


def fastest(work: Callable[[], object], rounds: int) -> float:
    """Return seconds of one call in the least disturbed of several turns."""
    best = float("inf")
    for _ in range(TURNS):
        start = time.perf_counter()
        for _ in range(rounds // TURNS):
            work()
        best = min(best, (time.perf_counter() - start) / (rounds // TURNS))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    rounds = parser.parse_args().rounds
    keyring = Keyring.new()
    direct = Sealer(replace(keyring, direct=frozenset({keyring.active})))
    sealer, fernet = Sealer(keyring), Fernet(Fernet.generate_key())
    access, refresh = Token("act." + "a" * (TOKEN_BYTES - 4)), Token("rft." + "r" * (TOKEN_BYTES - 4))
    plain = (access.reveal().encode(), refresh.reveal().encode())
    sealed, encrypted = sealer.seal_pair(access, refresh, PLACE), [fernet.encrypt(text) for text in plain]
    directly = direct.seal_pair(access, refresh, PLACE)
    rows = {
        "seal a pair": (
            fastest(lambda: sealer.seal_pair(access, refresh, PLACE), rounds),
            fastest(lambda: direct.seal_pair(access, refresh, PLACE), rounds),
            fastest(lambda: [fernet.encrypt(text) for text in plain], rounds),
        ),
        "open a pair": (
            fastest(lambda: (sealer.open_access(sealed, PLACE), sealer.open_refresh(sealed, PLACE)), rounds),
            fastest(lambda: (direct.open_access(directly, PLACE), direct.open_refresh(directly, PLACE)), rounds),
            fastest(lambda: [fernet.decrypt(text) for text in encrypted], rounds),
        ),
    }
    table = Table("", "ours", "one key for all", "Fernet", title=f"Pairs of two tokens of {TOKEN_BYTES} bytes")
    for name, seconds in rows.items():
        table.add_row(name, *(f"{each * 1e6:.1f} us" for each in seconds))
    stored = [len(pair.sealed_access) + len(pair.sealed_refresh) for pair in (sealed, directly)]
    table.add_row("bytes stored", *map(str, [*stored, sum(map(len, encrypted))]))
    Console().print(table)


if __name__ == "__main__":
    main()
