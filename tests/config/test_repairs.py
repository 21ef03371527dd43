"""What people paste, and what it means."""

from __future__ import annotations

import pytest

from emailproxy.config import repairs

URL = "https://login.example.com/TENANT/token"

PASTED = [
    ("token_url", f"  {URL}\t", URL, 0),
    ("token_url", f'"{URL}"', URL, 1),
    ("token_url", f"“{URL}”", URL, 1),
    ("token_url", f"`{URL}`", URL, 1),
    ("token_url", f"<{URL}>", URL, 1),
    ("token_url", f"{URL}\\", URL, 1),
    ("token_url", f'{URL}%22%5C"', URL, 1),
    ("token_url", f"[{URL}]({URL}%22%5C)", URL, 1),
    ("token_url", f"[the token URL]({URL})", URL, 1),
    ("token_url", f"\u200b{URL}\ufeff", URL, 1),
    ("token_url", f'[{URL}]({URL} "title")\\', URL, 2),
    ("server_address", "[imap.example.com](http://imap.example.com)", "imap.example.com", 1),
    ("oauth2_scope", f'"{URL} offline_access"', f"{URL} offline_access", 1),
    ("oauth2_scope", f"[{URL}]({URL}) offline_access", f"{URL} offline_access", 1),
    ("oauth2_scope", "https://x.example/SMPT.Send a", "https://x.example/SMTP.Send a", 1),
    ("client_id", "'abc'", "abc", 1),
    ("client_secret", '"abc"', "abc", 1),
    # what must stay
    ("client_secret", "abc\\", "abc\\", 0),
    ("client_secret", "'abc", "'abc", 0),
    ("client_secret", "[a](b)", "[a](b)", 0),
    ("client_secret", '"', '"', 0),
    ("redirect_uri", "http://<Your_Vault_Address>/x/", "http://<Your_Vault_Address>/x/", 0),
    ("redirect_uri", "<Your_Redirect>", "<Your_Redirect>", 0),
    ("token_url", "", "", 0),
]


@pytest.mark.parametrize(("key", "pasted", "meant", "slips"), PASTED)
def test_what_is_pasted_is_repaired_and_told(key: str, pasted: str, meant: str, slips: int) -> None:
    repaired = repairs.repair(key, pasted)
    assert (repaired.value, len(repaired.slips)) == (meant, slips)


@pytest.mark.parametrize(
    ("key", "value", "left"),
    [
        ("redirect_uri", "http://<Your_Vault_Address>/x/", "<Your_Vault_Address>"),
        ("token_url", "https://login.example.com/TENANT_ID/token", "TENANT_ID"),
        ("client_id", "CLIENT_ID", "CLIENT_ID"),
        ("client_id", "*** your client id here ***", "*** your client id here ***"),
        ("client_secret", "<secret>", "<secret>"),
        ("client_secret", "CLIENT_SECRET", "CLIENT_SECRET"),
        ("oauth2_scope", "*** scope ***", "*** scope ***"),
        ("token_url", "https://login.example.com/MY_TENANT_IDENTITY/token", None),
        ("client_secret", "a<b>c***TENANT_ID", None),
        ("client_id", "abc", None),
    ],
)
def test_placeholders_are_recognised(key: str, value: str, left: str | None) -> None:
    assert repairs.placeholder(key, value) == left
