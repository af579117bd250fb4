"""Keep the chatter of native libraries off the screen without losing what they complain about.

LiteRT and TFLite Micro write to file descriptor 2 directly, past `sys.stderr`: greetings ("Created TensorFlow Lite
XNNPACK delegate for CPU") as well as the only text that says why a model was refused. Neither has a Python switch.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# What a healthy run says. Everything else is passed on.
_CHATTER = re.compile(r"^(INFO: |WARNING: All log messages before absl)")

_one_at_a_time = threading.RLock()  # file descriptor 2 belongs to the whole process


class NativeLog:
    """What the native library wrote, complete once the `with` block has ended."""

    text: str = ""

    @property
    def reason(self) -> str:
        """The lines that are not chatter, in one line; empty if there are none."""
        return "; ".join(line.strip() for line in self.text.splitlines() if line.strip() and not _CHATTER.match(line))


@contextmanager
def capture_native_log(passes_on: bool = True) -> Iterator[NativeLog]:
    """Send file descriptor 2 to a file while the block runs.

    After a block that ends well, lines that are not chatter go to the real standard error, unless `passes_on` is False.
    After one that raises, they stay in the log's `reason`, to be put into the error's message.
    """
    log = NativeLog()
    with _one_at_a_time, tempfile.TemporaryFile() as sink:
        try:
            saved = os.dup(2)
        except OSError:  # a daemon without standard error: nothing to keep clean
            yield log
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(sink.fileno(), 2)
        try:
            yield log
        except BaseException:
            _restore(saved, sink.fileno(), log)
            raise
        _restore(saved, sink.fileno(), log)
        if log.reason and passes_on:
            os.write(2, (log.reason + "\n").encode())


def _restore(saved: int, sink: int, log: NativeLog) -> None:
    os.dup2(saved, 2)
    os.close(saved)
    log.text = os.pread(sink, 1 << 20, 0).decode(errors="replace")
