"""A child of Twisted's: `StandardIO(AMP())`.

python -m tests.interop.twisted_child READ_FD WRITE_FD
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import sys
from typing import Any

from tests.interop.twisted_peer import Peer, reactor, stdio


class Child(Peer):
    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        reactor.stop()


if __name__ == "__main__":
    stdio.StandardIO(Child(), int(sys.argv[1]), int(sys.argv[2]))
    reactor.run()
