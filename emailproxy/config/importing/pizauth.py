r"""pizauth.conf. Its tokens are not in it: pizauth keeps them in memory, and what it dumps, only it reads.

The grammar, as its manual has it::

    file    = *(account / option)
    account = "account" string "{" *option "}"
    option  = name "=" value ";"
    value   = string / time / "none" / "[" [string *("," string)] "]" / "{" [pair *("," pair)] "}"
    pair    = string ":" string
    string  = DQUOTE *(%x5C (%x5C / DQUOTE) / any other character) DQUOTE
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from emailproxy.config.importing.found import Format, Found, ImportedAccount, loopback_redirect
from emailproxy.config.parameters import OWN_PARAMETERS, PARAMETERS_WITH_KEYS
from emailproxy.config.scan import shown

TOKEN = re.compile(
    r'(?P<skipped>[ \t\n\r]+|//[^\n]*)|(?P<string>"(?:\\[\\"]|[^"\\])*")|(?P<word>[a-z0-9_]+)|(?P<mark>[=,{}\[\];:])'
)
ESCAPED = re.compile(r'\\([\\"])')

KEYS = {
    "auth_uri": "permission_url",
    "token_uri": "token_url",
    "client_id": "client_id",
    "client_secret": "client_secret",
}
"""Its options and our keys."""
COUNTERPARTS = {
    "auth_notify_cmd": "set on_consent_required in [emailproxy]",
    "auth_error_cmd": "set on_login_failed in [emailproxy]",
    "error_notify_cmd": "set on_login_failed in [emailproxy]",
    "token_event_cmd": "set on_token_refreshed in [emailproxy]",
    "http_listen": "set redirect_listen_address, if 127.0.0.1:8801 is not to be used",
    "https_listen": "let a reverse proxy speak TLS, and set redirect_uri to its address",
    "refresh_before_expiry": "set refresh_margin in [emailproxy]",
}
"""What could be set here in place of an option; the others need nothing."""

Value = str | Sequence[str] | Mapping[str, str]


class NotItsGrammar(ValueError):
    """A line is not pizauth's."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} is not in pizauth's grammar; what follows is not read")


@dataclass(slots=True)
class Block:
    """An account, or with no name what stands outside of all."""

    name: str
    options: dict[str, Value] = field(default_factory=dict)


def read(content: str, _name: str) -> Found:
    blocks, unread = _blocks(content)
    accounts: dict[str, ImportedAccount] = {}
    for block in blocks:
        unread += (f"{option}: {COUNTERPARTS[option]}" for option in block.options if option in COUNTERPARTS)
        if block.name:
            _add(accounts, block, unread)
    return Found(Format.PIZAUTH, tuple(accounts.values()), unread=tuple(dict.fromkeys(unread)))


def _add(accounts: dict[str, ImportedAccount], block: Block, unread: list[str]) -> None:
    """One more account; two for the same person, as for IMAP and SMTP apart, become one with all scopes."""
    fields = block.options.get("auth_uri_fields", {})
    hints = dict(fields) if isinstance(fields, Mapping) else {}
    names = (hints.get("login_hint", ""), _text(block, "login_hint"), block.name)
    name = next((hint for hint in names if "@" in hint), "")
    if not name:
        unread.append(f"account {shown(block.name)} names no mail address; add login_hint, and import it again")
        return
    settings = _settings(block, hints, unread)
    first = accounts.get(name)
    if first is None:
        accounts[name] = ImportedAccount(name, settings)
    elif all(first.settings.get(key) == settings.get(key) for key in KEYS.values()):
        scopes = [*first.settings.get("oauth2_scope", "").split(), *settings.get("oauth2_scope", "").split()]
        accounts[name] = ImportedAccount(name, {**first.settings, "oauth2_scope": " ".join(dict.fromkeys(scopes))})
    else:
        unread.append(f"account {shown(block.name)} is {shown(name)}'s, too, with another client: the first is taken")


def _settings(block: Block, fields: Mapping[str, str], unread: list[str]) -> dict[str, str]:
    settings = {ours: _text(block, theirs) for theirs, ours in KEYS.items() if _text(block, theirs)}
    scopes = block.options.get("scopes", ())
    if scopes and not isinstance(scopes, str):
        settings["oauth2_scope"] = " ".join(scopes)
    redirect_uri = loopback_redirect(_text(block, "redirect_uri"))
    if redirect_uri:
        settings["redirect_uri"] = redirect_uri
    if fields.get("prompt"):
        settings["prompt"] = fields["prompt"]
    further = {key: value for key, value in fields.items() if key not in PARAMETERS_WITH_KEYS}
    ours = sorted(key for key in further if key in OWN_PARAMETERS)
    if ours:
        unread.append(
            f"account {shown(block.name)}: auth_uri_fields has {', '.join(ours)}, which emailproxy sets itself"
        )
    further = {key: value for key, value in further.items() if key not in OWN_PARAMETERS}
    if further:
        settings["authorize_params"] = urlencode(further)
    return {key: value for key, value in settings.items() if value.isprintable()}


def _text(block: Block, option: str) -> str:
    value = block.options.get(option, "")
    return value if isinstance(value, str) else ""


# ---- the grammar


def _blocks(content: str) -> tuple[list[Block], list[str]]:
    tokens = _Tokens(content)
    outside = Block("")
    blocks = [outside]
    try:
        while tokens.more:
            if tokens.next_is("account"):
                tokens.word()
                block = Block(tokens.string())
                blocks.append(block)
                tokens.mark("{")
                while not tokens.next_is("}"):
                    _option(tokens, block)
                tokens.mark("}")
            else:
                _option(tokens, outside)
    except NotItsGrammar as wrong:
        return blocks, [str(wrong)]
    return blocks, []


def _option(tokens: _Tokens, block: Block) -> None:
    name = tokens.word()
    tokens.mark("=")
    value: Value
    if tokens.next_is("["):
        value = [text for text, _ in tokens.listed("[", "]", pairs=False)]
    elif tokens.next_is("{"):
        value = dict(tokens.listed("{", "}", pairs=True))
    elif tokens.next_is('"'):
        value = tokens.string()
    else:
        value = tokens.word()
    tokens.mark(";")
    block.options.setdefault(name, value)


class _Tokens:
    """The tokens of a text, one after the other."""

    def __init__(self, content: str) -> None:
        self._found = list(_tokens(content))
        self._at = 0

    @property
    def more(self) -> bool:
        return bool(self._found[self._at][0])

    def next_is(self, start: str) -> bool:
        token = self._found[self._at][0]
        return token == start or (start == '"' and token.startswith(start))

    def word(self) -> str:
        token, line = self._take()
        if not token or not (token[0].isalnum() or token[0] == "_"):
            raise NotItsGrammar(line)
        return token

    def mark(self, wanted: str) -> None:
        token, line = self._take()
        if token != wanted:
            raise NotItsGrammar(line)

    def string(self) -> str:
        token, line = self._take()
        if not token.startswith('"'):
            raise NotItsGrammar(line)
        return ESCAPED.sub(r"\1", token[1:-1])

    def listed(self, start: str, end: str, *, pairs: bool) -> Iterator[tuple[str, str]]:
        self.mark(start)
        while not self.next_is(end):
            key, value = self.string(), ""
            if pairs:
                self.mark(":")
                value = self.string()
            yield key, value
            if not self.next_is(end):
                self.mark(",")
        self.mark(end)

    def _take(self) -> tuple[str, int]:
        found = self._found[self._at]
        self._at = min(self._at + 1, len(self._found) - 1)
        return found


def _tokens(content: str) -> Iterator[tuple[str, int]]:
    """Each token with its line; the last, empty, is the end or what is none."""
    place, line = 0, 1
    while match := TOKEN.match(content, place):
        if not match["skipped"]:
            yield match[0], line
        line += match[0].count("\n")
        place = match.end()
    if place < len(content):
        yield "?", line
    yield "", line
