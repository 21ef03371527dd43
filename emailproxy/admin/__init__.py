"""The control socket: a running server's state and commands, for the command line of the same machine."""
