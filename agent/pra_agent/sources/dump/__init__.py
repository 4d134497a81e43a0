"""Database dumps, streamed out of a container or off the host, and piped back.

A preset knows one product: which streams its dump consists of, what the last bytes of each must be, and how a
stream is put back. `DumpSettings` is the job's configuration, `DumpSource` the source.
"""

from pra_agent.sources.dump.settings import DumpSettings
from pra_agent.sources.dump.source import DumpSource

__all__ = ["DumpSettings", "DumpSource"]
