"""One of several processes: what it does without the others. test_workers has the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.support.command import ROOT, Done, environment, keyrelay

WRITE = """
import sys
from proxy.process.output import OutputWriter

output = OutputWriter(1, limit_bytes=1 << 30)
output.lock = int(sys.argv[1])

# Nobody begins before all are there.
sys.stderr.write("r")
sys.stderr.flush()
sys.stdin.read()
line = sys.argv[2] * 9999 + "\\n"
for _ in range(20):
    output.write(line * 20)
assert output.close(60)
"""


def test_a_worker_needs_a_supervisor() -> None:
    """The option that keyrelay keeps for itself is refused with the one that is meant."""
    said = "keyrelay: --worker is for keyrelay itself; write --workers 2\n"
    assert keyrelay("run", "--worker", "99") == Done(1, "", said)


def test_long_batches_of_lines_stay_whole() -> None:
    """Three processes write more at a time than a pipe takes; no line has anything of another."""
    ours, theirs = os.pipe()
    ready, say_ready = os.pipe()
    wait, begin = os.pipe()
    with tempfile.TemporaryFile() as lock:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITE, str(lock.fileno()), letter],
                stdin=wait,
                stdout=theirs,
                stderr=say_ready,
                pass_fds=(lock.fileno(),),
                env=environment(),
                cwd=ROOT,
            )
            for letter in "abc"
        ]
        for one in (theirs, say_ready, wait):
            os.close(one)
        assert b"".join(os.read(ready, 1) for _ in writers) == b"rrr"
        os.close(begin)
        os.close(ready)
        with os.fdopen(ours) as pipe:
            lines = pipe.read().splitlines()
        assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(lines) == 1200
    assert {len(line) for line in lines} == {9999}
    assert {len(set(line)) for line in lines} == {1}
