"""Configuration texts that several tests share."""

from __future__ import annotations

from pathlib import Path

from emailproxy.config import ini
from emailproxy.config.model import Config
from emailproxy.errors import ConfigError, Fault

PATH = Path("/etc/emailproxy/emailproxy.ini")

DOCUMENTED = """\
[emailproxy]
delete_account_token_on_password_error = True
encrypt_client_secret_on_first_use = False
allow_catch_all_accounts = True
[IMAP-2993]
server_address = outlook.office365.com
server_port = 993
[SMTP-2465]
server_address = smtp.office365.com
server_port = 587
starttls = True
[@]
redirect_uri = http://<Your_Vault_Address>/email-oauth2-proxy-authorize/
redirect_list_address = http://127.0.0.1:8801/
token_url = [https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/token]\
(https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/token%22%5C)
permission_url = https://login.microsoftonline.com/TENANT_ID/oauth2/v2.0/authorize
oauth2_scope = https://outlook.office365.com/IMAP.AccessAsUser.All \
https://outlook.office365.com/POP.AccessAsUser.All https://outlook.office365.com/SMPT.Send offline_access
client_id = CLIENT_ID
client_secret = CLIENT_SECRET
oauth2_flow = client_credentials
"""

SECRET = "canary-7Zq8~secret"

FILLED_IN = (
    DOCUMENTED.replace("<Your_Vault_Address>", "vault.example.com")
    .replace("TENANT_ID", "contoso")
    .replace("CLIENT_ID", "11111111-2222")
    .replace("CLIENT_SECRET", SECRET)
)

SERVER = "[IMAP-2993]\nserver_address = imap.example.com\nserver_port = 993\n"
ACCOUNT_KEYS = """\
token_url = https://login.example.com/token
permission_url = https://login.example.com/authorize
oauth2_scope = mail offline_access
client_id = abc
"""
ACCOUNT = f"[anna@example.com]\n{ACCOUNT_KEYS}"
GOOD = SERVER + ACCOUNT


def config(text: str) -> Config:
    return ini.loads(text, PATH, state_dir=Path("/state"), log_file=Path("/log"))


def read(text: str, *, draft: bool = False) -> Config | tuple[Fault, ...]:
    """What becomes of a text: a configuration or its faults, never another exception."""
    try:
        return ini.loads(text, PATH, state_dir=Path("/state"), log_file=Path("/log"), allow_placeholders=draft)
    except ConfigError as error:
        return error.faults


def faults(text: str) -> list[Fault]:
    """The faults of a text that is wrong."""
    found = read(text)
    assert isinstance(found, tuple), "the text was accepted"
    return list(found)
