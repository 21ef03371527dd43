"""What may be an account's name: asked before anything else sees it (C0 controls in a name forge lines elsewhere)."""

MAX_NAME = 254  # octets; RFC 5321 section 4.5.3.1.3: the longest path, less its angle brackets


def is_a_name(user: str) -> bool:
    """Whether the name is one printable line: no controls, line separators, reversed writing or lone surrogates."""
    return user.isprintable() and 0 < len(user.encode()) <= MAX_NAME
