"""Memory: how much of it this process takes."""

import os
import resource
import sys


def resident_bytes() -> int:
    """Return the resident size of this process; where only its peak is known, that."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Kilobytes, and on macOS bytes.
        return peak if sys.platform == "darwin" else peak * 1024
