"""What the control socket's requests may say."""

from __future__ import annotations

import pytest

from emailproxy.admin.messages import Add, Change, Configuration, OfAccount, Remove, parsed
from emailproxy.errors import ProtocolError
from emailproxy.secret import Secret

GOOD = [
    (Configuration, b"", Configuration()),
    (Configuration, b'{"text": null, "path": "/x"}', Configuration(path="/x")),
    (OfAccount, b'{"account": "a@x"}', OfAccount(account="a@x")),
    (
        Add,
        b'{"account": "a@x", "name": "n", "protocols": ["IMAP"], "expires_s": 9, "password": "p"}',
        Add(account="a@x", name="n", password=Secret("p"), protocols=("IMAP",), expires_s=9),
    ),
    (Change, b'{"account": "a@x", "old": "o", "new": null}', Change(account="a@x", old=Secret("o"))),
    (Remove, b'{"account": "a@x", "name": "n", "force": true}', Remove(account="a@x", name="n", force=True)),
]


@pytest.mark.parametrize(("kind", "body", "message"), GOOD)
def test_a_message_is_read(kind: type[OfAccount], body: bytes, message: OfAccount) -> None:
    assert parsed(kind, body) == message


BAD = [
    (OfAccount, b"{", "not JSON"),
    (OfAccount, b"[" * 100_000, "not JSON"),
    (OfAccount, b'["canary"]', "no JSON object"),
    (OfAccount, b"{}", "account is missing"),
    (OfAccount, b'{"account": null}', "account is not of its kind"),
    (OfAccount, b'{"account": "a@x", "canary": 1}', "takes account, and nothing else"),
    (Add, b'{"account": "a@x", "name": "n", "expires_s": true}', "expires_s is not of its kind"),
    (Add, b'{"account": "a@x", "name": "n", "networks": ["canary", 1]}', "networks is not of its kind"),
    (Add, b'{"account": "a@x", "name": "n", "protocols": null}', "protocols is not of its kind"),
    (Change, b'{"account": "a@x", "old": {"canary": 1}}', "old is not of its kind"),
    (Remove, b'{"account": "a@x", "name": "n", "force": 1}', "force is not of its kind"),
]


@pytest.mark.parametrize(("kind", "body", "told"), BAD)
def test_anything_else_is_refused_and_not_repeated(kind: type[OfAccount], body: bytes, told: str) -> None:
    with pytest.raises(ProtocolError, match=told) as refused:
        parsed(kind, body)
    assert "canary" not in str(refused.value)
