"""What sealing costs: a pair sealed and opened, beside the same with Fernet in the same run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

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
    sealer, fernet = Sealer(Keyring.new()), Fernet(Fernet.generate_key())
    access, refresh = Token("act." + "a" * (TOKEN_BYTES - 4)), Token("rft." + "r" * (TOKEN_BYTES - 4))
    plain = (access.reveal().encode(), refresh.reveal().encode())
    sealed, encrypted = sealer.seal_pair(access, refresh, PLACE), [fernet.encrypt(text) for text in plain]
    rows = {
        "seal a pair": (
            fastest(lambda: sealer.seal_pair(access, refresh, PLACE), rounds),
            fastest(lambda: [fernet.encrypt(text) for text in plain], rounds),
        ),
        "open a pair": (
            fastest(lambda: (sealer.open_access(sealed, PLACE), sealer.open_refresh(sealed, PLACE)), rounds),
            fastest(lambda: [fernet.decrypt(text) for text in encrypted], rounds),
        ),
    }
    table = Table("", "ours", "Fernet", "ratio", title=f"Pairs of two tokens of {TOKEN_BYTES} bytes")
    for name, (ours, theirs) in rows.items():
        table.add_row(name, f"{ours * 1e6:.1f} us", f"{theirs * 1e6:.1f} us", f"{ours / theirs:.2f}")
    stored = len(sealed.sealed_access) + len(sealed.sealed_refresh), sum(map(len, encrypted))
    table.add_row("bytes stored", str(stored[0]), str(stored[1]), f"{stored[0] / stored[1]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
