"""The program of one side of one peer; the runner starts two of it for each turn.

Both get ready at the same time. The server prints its port when it listens, and the client, once it
is told on its input where that is, what it measured.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from typing import Any

from benchmarks.harness import allow_descriptors
from benchmarks.peers.roster import PEERS
from benchmarks.peers.turn import Turn


def main() -> None:
    side, turn = sys.argv[1], Turn.of_arguments()
    turn.bind(0 if side == "server" else 1)
    allow_descriptors()
    peer: Any = importlib.import_module(PEERS[turn.peer].module)
    if side == "server":
        peer.run_server(turn)
        return
    port, server = json.loads(sys.stdin.readline())
    peer.run_client(replace(turn, port=port, server=server))


if __name__ == "__main__":
    main()
