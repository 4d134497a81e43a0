"""pra-agent: a host-resident backup agent that writes restic's repository format."""

__version__ = "0.1.0"
