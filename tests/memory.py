"""How much memory this process holds."""

import resource
from pathlib import Path


def resident():
    """Bytes in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
