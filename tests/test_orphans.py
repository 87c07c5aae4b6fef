from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.documents import ROOT

PARENT = """
import os, subprocess, sys
reader, writer = os.pipe()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdin=reader)
print(child.pid, flush=True)
os.close(reader)
sys.stdin.read()
"""

WATCHED = """
import sys
from typed_amp import orphans
orphans._SECONDS_TO_END = 0
orphans.{function}(int(sys.argv[1]), 0)
print("ready", flush=True)
while True:
    pass
"""


@pytest.mark.parametrize("function", ["end_with_parent", "watch_parent"])
def test_a_busy_child_ends_with_its_parent(function: str) -> None:
    child = WATCHED.format(function=function)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, child],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        process_id = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        try:
            # The child has the same standard output, which ends with the last of the two.
            assert parent.stdout.read() == ""
        except BaseException:
            os.kill(process_id, signal.SIGKILL)
            raise
