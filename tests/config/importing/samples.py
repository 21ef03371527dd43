"""Other programs' files, and what our reader makes of their accounts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emailproxy.config import catchall, edit, ini
from emailproxy.config.importing import Imported, ImportedAccount
from emailproxy.config.model import Account
from tests.config.samples import SERVER

CANARY = "canary-7Zq8"
MICROSOFTS = "https://login.microsoftonline.com/common/oauth2/v2.0"


def js(**values: Any) -> bytes:
    return json.dumps(values).encode()


def only(imported: Imported) -> ImportedAccount:
    [account] = imported.accounts
    return account


def built(account: ImportedAccount) -> Account:
    """The account as our reader has it, placeholders and all."""
    text = edit.append_section(SERVER, account.name, account.settings)
    draft = ini.loads(text, Path("/x.ini"), allow_placeholders=True)
    return catchall.resolve(draft, account.name)


def tokens(account: ImportedAccount) -> tuple[str | None, str | None, int | None]:
    access, refresh = account.access_token, account.refresh_token
    return access and access.reveal(), refresh and refresh.reveal(), account.expires_at_s


MUTT = {
    "registration": "microsoft",
    "authflow": "localhostauthcode",
    "email": "ada@example.com",
    "access_token": f"{CANARY}-access",
    "access_token_expiration": "2026-01-01T12:00:00.5+00:00",
    "refresh_token": f"{CANARY}-refresh",
    "client_id": "client",
    "client_secret": "",
}


OAMA_RECORD = {
    "email": "ada@example.com",
    "service": "microsoft",
    "scope": "s",
    "refresh_token": f"{CANARY}-refresh",
    "access_token": f"{CANARY}-access",
    "token_type": "Bearer",
    "exp_date": "2026-01-01 12:00 UTC",
    "expires_in": 3600,
}
OAMA_CONFIG = b"""\
## a comment
encryption:
    tag: GPG
    contents: KEY

services:
  google:
    client_id: google-client
    client_secret_cmd: |
      pass email/my-app | head -1
  microsoft:
     client_id: client
     auth_scope: https://outlook.office.com/IMAP.AccessAsUser.All
       offline_access
     tenant: contoso.com
  yahoo:
     client_id: y
     client_secret: z
     auth_endpoint: https://api.login.yahoo.com/oauth2/request_auth
     auth_http_method: GET
     token_endpoint: https://api.login.yahoo.com/oauth2/get_token
     auth_scope: mail-w
     redirect_uri: http://127.0.0.1:8080/done
"""
