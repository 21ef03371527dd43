"""The login dialogues: pure protocol logic, no I/O (no asyncio, socket, ssl, time or logging)."""
