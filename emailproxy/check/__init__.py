"""`emailproxy check`: every link from the configuration to a real login, tried one after the other."""
