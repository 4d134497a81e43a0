"""The control socket: HTTP/1.1 over a Unix socket, its server in the daemon and its client in the command line.

`server.ControlServer` serves what a `daemon.Daemon` offers, `client.Client` asks for it; `worker.serve` is the child
process that reads the repository for one restore session. The routes are the table in `routes`, from which
docs/openapi.json is made; docs/socket.md explains the rest.
"""
