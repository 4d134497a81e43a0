"""The restore socket: protocol, server, client."""
