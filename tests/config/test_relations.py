"""Who is who: aliases, owners of mailboxes, servers of accounts, and who may be first."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from emailproxy.config import catchall
from emailproxy.config.model import FirstLogin, MailServer
from emailproxy.errors import UnknownAccount
from tests.config.samples import ACCOUNT, ACCOUNT_KEYS, GOOD, SERVER, config, faults

CATCH_ALLS = "[emailproxy]\nallow_catch_all_accounts = True\n"
BOB = f"[bob@example.com]\n{ACCOUNT_KEYS}".replace("abc", "bob")
SHARED = "[office@example.com]\ntoken_owner = Anna@Example.com\n"
APPLICATION = (
    "token_url = https://login.example.com/token\noauth2_flow = client_credentials\noauth2_scope = mail\n"
    "client_id = abc\nclient_secret = x\n"
)
OPEN = f"{SERVER}local_address = 0.0.0.0\nallow_plaintext_from = 10.0.0.0/8\n"


class TestAliases:
    @pytest.mark.parametrize("alias", ["anna", "ANNA", "example\\Anna", "anna@example.com\\shared"])
    def test_an_alias_gives_the_account_its_own_name(self, alias: str) -> None:
        found = config(f"{GOOD}aliases = anna, EXAMPLE\\anna\n  anna@example.com\\shared\n")
        account = catchall.resolve(found, alias)
        assert (account.name, account.key) == ("anna@example.com", "anna@example.com")
        with pytest.raises(UnknownAccount):
            catchall.resolve(found, "anne")

    def test_an_alias_goes_before_a_catch_all(self) -> None:
        found = config(f"{CATCH_ALLS}{GOOD}aliases = anna\n[@]\n{ACCOUNT_KEYS.replace('abc', 'all')}")
        assert catchall.resolve(found, "Anna").client_id == "abc"
        assert catchall.resolve(found, "bob").client_id == "all"

    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            (f"{GOOD}aliases = bob@example.com\n{BOB}", 9, "which is [bob@example.com]'s, on line 10"),
            (f"{GOOD}aliases = bob\n{BOB}aliases = x, BOB\n", 15, "which is [anna@example.com]'s, on line 4"),
            (f"{GOOD}aliases = ANNA@example.com\n", 9, "the account itself"),
            (f"{CATCH_ALLS}{GOOD}[@]\naliases = anna\n", 12, "belongs to one account"),
            (f"{GOOD}aliases = @example.com\n", 9, "is no user name"),
        ],
    )
    def test_a_clash_is_told(self, text: str, line: int, words: str) -> None:
        [fault] = faults(text)
        assert (fault.line, fault.key) == (line, "aliases")
        assert words in str(fault)


class TestOwners:
    def test_a_mailbox_has_its_owners_oauth_settings_and_its_own_everything_else(self) -> None:
        own = "auth_as = office\nsmtp_auth_as = anna\nfirst_login = deny\nallow_from = ::1\n"
        own += "max_connections_per_account = 2\nimap_server = imap.example.net:993\naliases = office\n"
        owners = "auth_as = nobody\nfirst_login = trust\nmax_connections_per_account = 9\nlogin_hint = x\n"
        owners += "imap_server = imap.example.com:993\npop_server = pop.example.com:995\n"
        found = config(f"{GOOD}{owners}{SHARED}{own}")
        anna, office = catchall.resolve(found, "anna@example.com"), catchall.resolve(found, "OFFICE")
        assert office.name == "office@example.com"
        assert office.key == anna.key
        assert (office.client_id, office.token_url, office.login_hint) == (anna.client_id, anna.token_url, "x")
        assert (office.auth_as, office.smtp_auth_as) == ("office", "anna")
        assert (office.first_login, office.max_connections) == (FirstLogin.DENY, 2)
        assert office.allow_from == (ip_network("::1/128"),)
        assert office.imap_server == MailServer("imap.example.net", 993)
        assert office.pop_server == MailServer("pop.example.com", 995)
        plain = catchall.resolve(config(f"{GOOD}{owners}{SHARED}"), "office@example.com")
        assert (plain.auth_as, plain.first_login, plain.max_connections) == (None, None, None)
        assert plain.imap_server == anna.imap_server

    def test_a_mailbox_is_no_way_around_what_guards_its_owners_passwords(self) -> None:
        guarded = f"{GOOD}first_login = deny\nallow_from = 10.0.0.0/8\n{SHARED}"
        for own in ("", "first_login = trust\n"):
            office = catchall.resolve(config(f"{guarded}{own}"), "office@example.com")
            assert (office.first_login, office.allow_from) == (FirstLogin.DENY, (ip_network("10.0.0.0/8"),))
        office = catchall.resolve(config(f"{guarded}allow_from = ::1\n"), "office@example.com")
        assert office.allow_from == (ip_network("::1/128"),)

    @pytest.mark.parametrize("owner", ["anna", "ANNA@example.com"])
    def test_an_owner_may_be_named_by_an_alias(self, owner: str) -> None:
        found = config(f"{GOOD}aliases = anna\n{SHARED.replace('Anna@Example.com', owner)}")
        assert catchall.resolve(found, "office@example.com").key == "anna@example.com"

    def test_one_who_owns_the_own_mailbox_is_no_mailbox_of_another(self) -> None:
        account = catchall.resolve(config(f"{GOOD}aliases = anna\ntoken_owner = anna\n"), "anna@example.com")
        assert account.key == "anna@example.com"

    def test_an_owner_may_be_served_by_a_catch_all(self) -> None:
        found = config(f"{CATCH_ALLS}{SERVER}[@example.com]\n{ACCOUNT_KEYS}token_owner = anna@example.com\n")
        for user in ("office@example.com", "anna@example.com"):
            account = catchall.resolve(found, user)
            assert (account.name, account.key, account.client_id) == (user, "anna@example.com", "abc")

    def test_one_who_has_no_section_owns_it_with_the_mailboxes_settings(self) -> None:
        account = catchall.resolve(config(f"{GOOD}token_owner = Carol@example.com\n"), "anna@example.com")
        assert (account.key, account.client_id) == ("carol@example.com", "abc")

    def test_whoever_signs_in(self) -> None:
        assert catchall.resolve(config(f"{GOOD}token_owner = *\n"), "anna@example.com").key == "anna@example.com"

    def test_settings_that_the_owner_has_differently_are_in_vain(self) -> None:
        found = config(f"{GOOD}{SHARED}client_id = other\noauth2_scope = mail offline_access\n")
        [notice] = found.notices
        assert ":11: [office@example.com] client_id: has no effect" in notice
        assert catchall.resolve(found, "office@example.com").client_id == "abc"

    @pytest.mark.parametrize(
        ("text", "line", "words"),
        [
            (
                f"{GOOD}token_owner = bob@example.com\n{BOB}{SHARED}",
                16,
                "write token_owner = bob@example.com",
            ),
            (f"{GOOD}token_owner = bob@example.com\n{BOB}token_owner = anna@example.com\n", 9, "whose own token_owner"),
            (f"{GOOD}token_owner = @example.com\n", 9, "is no user name"),
            (f"{GOOD}token_owner = x@y\n{BOB}token_owner = X@y\n", 15, "which differs in client_id"),
            (
                f"{GOOD}token_owner = x@y\nfirst_login = deny\n{BOB.replace('= bob', '= abc')}token_owner = x@y\n",
                16,
                "which differs in first_login",
            ),
            (
                f"{CATCH_ALLS}{SERVER}[@example.org]\nclient_id = x\n[x@example.org]\n{ACCOUNT_KEYS}"
                f"{SHARED.replace('Anna@Example.com', 'eve@example.org')}",
                14,
                "complete [@example.org]",
            ),
        ],
    )
    def test_what_cannot_be_is_told(self, text: str, line: int, words: str) -> None:
        found = [fault for fault in faults(text) if fault.line == line]
        assert [fault.key for fault in found] == ["token_owner"]
        assert words in str(found[0])


class TestServers:
    @pytest.mark.parametrize(
        ("settings", "imap", "smtp"),
        [
            ("", None, None),
            ("imap_server = imap.example.com:993\n", MailServer("imap.example.com", 993), None),
            (
                "token_url = https://oauth2.googleapis.com/token\n",
                MailServer("imap.gmail.com", 993),
                MailServer("smtp.gmail.com", 465),
            ),
            (
                "tenant = contoso.com\nprovider = microsoft\nsmtp_server = relay.contoso.com:25/starttls\n",
                MailServer("outlook.office365.com", 993),
                MailServer("relay.contoso.com", 25, True),
            ),
            ("token_url = https://login.microsoftonline.us/x/oauth2/v2.0/token\n", None, None),
            ("provider = google\n", MailServer("imap.gmail.com", 993), MailServer("smtp.gmail.com", 465)),
        ],
    )
    def test_a_server_is_named_or_the_providers(
        self, settings: str, imap: MailServer | None, smtp: MailServer | None
    ) -> None:
        keys = {line.partition(" = ")[0] for line in settings.splitlines()} | ({"token_url"} & {settings[:9]})
        if "tenant" in keys:
            keys |= {"token_url", "permission_url"}
        base = "".join(line for line in ACCOUNT_KEYS.splitlines(True) if line.partition(" = ")[0] not in keys)
        account = catchall.resolve(config(f"{SERVER}[anna@example.com]\n{base}{settings}"), "anna@example.com")
        assert (account.imap_server, account.smtp_server) == (imap, smtp)
        assert account.server_for("IMAP") == imap

    def test_a_port_for_all_is_there_for_whoever_has_a_server(self) -> None:
        found = config(f"[IMAP-1143]\n{ACCOUNT}imap_server = imap.example.com:993\n{BOB}")
        assert found.servers[0].target is None
        assert found.notices == ()
        [fault] = faults(f"[POP-1110]\n{ACCOUNT}imap_server = imap.example.com:993\n")
        assert (fault.line, fault.key) == (1, "server_address")

    def test_servers_are_inherited(self) -> None:
        found = config(f"{CATCH_ALLS}[IMAP-1143]\n[@example.com]\nimap_server = imap.example.com:993\n{ACCOUNT}")
        assert catchall.resolve(found, "anna@example.com").imap_server == MailServer("imap.example.com", 993)


class TestFirstLogins:
    """A catch-all whose tokens come with nobody signing in, on a port that others reach."""

    @pytest.mark.parametrize("flow", [APPLICATION, 'token_command = ["/bin/token"]\n'])
    @pytest.mark.parametrize(
        ("server", "listener", "account", "line", "section"),
        [
            (OPEN, "first_login = trust\n", "", 8, "IMAP-2993"),
            (OPEN, "first_login = trust\n", "first_login = trust\n", 10, "@"),
            (OPEN, "", "first_login = trust\n", 9, "@"),
            (f"{SERVER}proxy_protocol_from = ::1\n", "first_login = trust\n", "", 7, "IMAP-2993"),
        ],
    )
    def test_trust_is_refused(
        self, flow: str, server: str, listener: str, account: str, line: int, section: str
    ) -> None:
        [fault] = faults(f"{CATCH_ALLS}{server}{listener}[@]\n{account}{flow}")
        assert (fault.line, fault.section, fault.key) == (line, section, "first_login")
        assert "being the first to name it" in fault.what
        assert "write deny" in fault.mend

    @pytest.mark.parametrize(
        ("server", "account", "flow"),
        [
            (OPEN, "", APPLICATION),
            (f"{OPEN}first_login = deny\n", "first_login = trust\n", APPLICATION),
            (f"{OPEN}first_login = trust\n", "first_login = deny\n", APPLICATION),
            (f"{OPEN}first_login = deny\n", "first_login = deny\n", APPLICATION),
            (f"{SERVER}first_login = trust\n", "first_login = trust\n", APPLICATION),
            (f"{OPEN}first_login = trust\n", "", ACCOUNT_KEYS),
        ],
    )
    def test_what_is_safe_is_accepted(self, server: str, account: str, flow: str) -> None:
        assert config(f"{CATCH_ALLS}{server}[@]\n{account}{flow}").notices == ()

    def test_where_the_provider_judges_the_password_nobody_is_trusted_blindly(self) -> None:
        setting = "use_login_password_as_client_credentials_secret = True\n"
        flow = APPLICATION.replace("client_secret = x\n", "")
        assert config(f"{CATCH_ALLS}{setting}{OPEN}first_login = trust\n[@]\n{flow}").notices == ()
