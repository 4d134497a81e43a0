"""Database dumps, streamed out of a container or off the host, and piped back.

A preset knows one product: which streams its dump consists of, what the last bytes of each must be, and how a
stream is put back. `DumpSettings` is the job's configuration; it imports the source only when it builds one.
"""

from pra_agent.sources.dump.settings import DumpSettings

__all__ = ["DumpSettings"]
