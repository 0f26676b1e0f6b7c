"""What the system says of its processor and of this process.

Apart from ``runtime``, so that asking loads no torch.
"""

from __future__ import annotations

import functools
import platform
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def cpu_name() -> str:
    """The processor's own name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets, by the names Linux gives them; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def peak_resident_bytes() -> int:
    """The largest resident set that this process has had since its program began.

    From Linux' VmHWM, which belongs to the memory of the program. ``ru_maxrss``, which is asked
    elsewhere, belongs to the process and survives exec: started by a large process, a small one
    would say how large the other was.
    """
    try:
        status = STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource  # noqa: PLC0415 - POSIX only

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
