"""What mail servers answer to a login with a token, and what to do."""

from __future__ import annotations

from emailproxy.oauth.advice.row import row

EXCHANGE_SMTP = (
    row(
        "microsoft",
        r"SmtpClientAuthentication is disabled for the Mailbox",
        "sending by SMTP is switched off for this mailbox",
        "have an administrator switch on 'Authenticated SMTP' (Microsoft 365 admin center > Users > the user > Mail > "
        "Manage email apps), then wait some minutes",
    ),
    row(
        "microsoft",
        r"SmtpClientAuthentication is disabled for the Tenant|5\.7\.139.{0,80}SmtpClientAuthentication",
        "sending by SMTP is switched off for the whole tenant",
        "have an administrator run Set-CASMailbox ADDRESS -SmtpClientAuthenticationDisabled $false in Exchange Online "
        "PowerShell for this mailbox, then wait some minutes",
    ),
    row(
        "microsoft",
        r"5\.7\.139.{0,80}(?:security defaults|locked by your organization|did not meet the criteria)",
        "the tenant's security defaults forbid sending by SMTP",
        "have an administrator replace them by Conditional Access policies, or enable 'Authenticated SMTP' for this "
        "mailbox once they are off",
    ),
    row(
        "microsoft",
        r"5\.7\.139|basic authentication is (?:disabled|not supported)|BasicAuthBlocked",
        "Exchange does not accept this login by SMTP or by password",
        "check 'Authenticated SMTP' for the mailbox (Microsoft 365 admin center > Users > the user > Mail > "
        "Manage email apps) and the tenant's sign-in log",
    ),
    row(
        "microsoft",
        r"5\.7\.57\b",
        "the mail program sent no login before its mail",
        "switch on authentication (user name and password) in its outgoing server (SMTP) settings",
    ),
    row(
        "microsoft",
        r"\b5\.7\.3 Authentication unsuccessful",
        "Exchange does not take this user's token for this mailbox: another account signed in, or it is shared",
        "run 'emailproxy authorize ACCOUNT' and sign in as the mailbox itself; for a shared mailbox set token_owner to "
        "a user with Send As",
    ),
    row(
        "microsoft",
        r"4\.7\.0 Temporary server error.{0,40}\bPRX\d",
        "Exchange could not look at the login: a fault of its own, or no mailbox has this address",
        "try again in some minutes; if it stays so, check that the user name is the mailbox's own address",
        temporary=True,
    ),
    row(
        "microsoft",
        r"Concurrent connections limit exceeded|sender thread limit exceeded",
        "Exchange takes three submissions of a mailbox at once, and there are more",
        "nothing to do: try again in a minute, or let the program send one after another",
        temporary=True,
    ),
    row(
        "microsoft",
        r"SendAsDenied|5\.2\.252\b|5\.7\.60\b",
        "the mailbox that logged in may not send under this From address",
        "grant it Send As for that address (Exchange admin center > Mailboxes > Delegation), or change From in the "
        "mail program",
    ),
    row(
        "microsoft",
        r"STOREDRV.{0,40}mailbox logon failure|MapiExceptionLogonFailed",
        "Exchange cannot open the mailbox: its service principal was often made with the wrong object ID",
        "make it anew with the object ID shown under Entra admin center > Enterprise applications, not App "
        "registrations: New-ServicePrincipal, then Add-MailboxPermission",
    ),
    row(
        "any",
        r"5\.5\.2 Line too long|500 .{0,20}line too long",
        "the access token makes the login's line longer than the mail server takes",
        "ask for fewer scopes in oauth2_scope; with Microsoft, for those of outlook.office.com only",
    ),
)

EXCHANGE = (
    row(
        "microsoft",
        r"Request is throttled.{0,20}Suggested Backoff Time: (?P<milliseconds>\d{1,9}) milliseconds",
        "Exchange throttles this mailbox",
        "wait {wait}; fewer connections of the mail program help",
        temporary=True,
    ),
    row(
        "microsoft",
        r"Request is throttled|Server Busy\. Please retry",
        "Exchange throttles this mailbox",
        "wait a few minutes; fewer connections of the mail program help",
        temporary=True,
    ),
    row(
        "microsoft",
        r"AccessTokenExpired",
        "the access token ended during the session",
        "nothing to do: the mail program connects again and gets a fresh one",
        temporary=True,
    ),
    row(
        "microsoft",
        r"authenticated but not connected",
        "whoever signed in has no right to this mailbox, or the program reconnects too fast",
        "for a shared mailbox grant the user Full Access (Exchange admin center > Mailboxes > Delegation); for an "
        "application Add-MailboxPermission; else sign in as the mailbox",
    ),
    row(
        "microsoft",
        r"(?-i:\bNO AUTHENTICATE failed\.)|Authentication failure: unknown user name or bad password",
        "Exchange refuses the token: the protocol is off for this mailbox, or who signed in has no right to it",
        "check Get-CASMailbox (Set-CASMailbox ADDRESS -ImapEnabled $true, -PopEnabled $true), who signed in, and for "
        "an application New-ServicePrincipal and Add-MailboxPermission",
    ),
    row(
        "microsoft",
        r"-ERR Protocol error|Protocol error\. Connection is closed",
        "Exchange cannot read the login as POP3",
        "check that server_port is the POP3 port (995), and use IMAP where the mail program can",
    ),
    row(
        "microsoft",
        r"(?-i:\bNO LOGIN failed\.)",
        "Exchange refuses the login: a password where it wants a token, or the protocol is off for this mailbox",
        "let the mail program log in through emailproxy, and check Get-CASMailbox (Set-CASMailbox ADDRESS -ImapEnabled "
        "$true)",
    ),
)

GOOGLE = (
    row(
        "google",
        r"Application-specific password required",
        "Google was sent a password where it wants a token",
        "let the mail program log in through emailproxy (its address and local_port), not at Google itself",
    ),
    row(
        "google",
        r"Too many simultaneous connections",
        "Google takes 15 IMAP connections of a mailbox at once, and there are more",
        "close mail programs, or lower their number of connections, and try again in a few minutes",
        temporary=True,
    ),
    row(
        "google",
        r"Too many login attempts.{0,200}\bgsmtp|exceeded command or bandwidth limits",
        "Google limits this mailbox for a while: too many logins, or too much mail fetched today",
        "wait an hour, up to a day; check mail less often",
        temporary=True,
    ),
    row(
        "google",
        r"\b4\.7\.0 .{0,200}\bgsmtp",
        "Google's mail server has a fault of its own",
        "wait a few minutes; nothing to change",
        temporary=True,
    ),
    row(
        "google",
        r"not enabled for IMAP use|IMAP access is disabled for your domain|not enabled for POP access",
        "IMAP or POP is switched off for this mailbox",
        "switch it on in Gmail's settings (Forwarding and POP/IMAP), or have the Workspace administrator do so (Apps > "
        "Gmail > End User Access)",
    ),
    row(
        "google",
        r"log in via your web browser|web login required",
        "Google wants to see the owner in a browser first",
        "sign in to Gmail in a browser, answer what it asks, then try again",
    ),
    row(
        "google",
        r"status (?:400|invalid_request), .{0,40}scope https://mail\.google\.com/",
        "Google refuses the token: its scope is too narrow (gmail.send is none for SMTP), or it is another mailbox's",
        "set oauth2_scope = https://mail.google.com/, then sign in as the mailbox with 'emailproxy authorize ACCOUNT'",
    ),
    row(
        "google",
        r"5\.7\.8 Username and Password not accepted|Invalid credentials \(Failure\)",
        "Google does not take the token for this mailbox",
        "set oauth2_scope = https://mail.google.com/, and sign in as the mailbox with 'emailproxy authorize ACCOUNT'",
    ),
)

# RFC 7628 section 3.2.2: what `wire.sasl.failure_text` makes of the challenge
CHALLENGE = (
    row(
        "any",
        r"\bstatus insufficient_scope\b",
        "the mail server finds the token's scope too narrow",
        "set oauth2_scope to what the provider documents for IMAP, POP and SMTP, then sign in again",
    ),
    row(
        "any",
        r"\bstatus (?P<status>[a-z0-9_]{1,30})\b[^)]{0,160}\bscope (?P<scope>[^\s,)]{1,120})",
        "the mail server refuses the token (status {status}); it wants the scope {scope}",
        "compare it with oauth2_scope, and check that the mailbox's owner is who signed in",
    ),
    row(
        "any",
        r"\bstatus (?P<status>[45]\d\d|invalid_token|invalid_request)\b",
        "the mail server refuses the token (status {status})",
        "check that the mailbox's owner is who signed in, that the mailbox permits this protocol, and oauth2_scope",
    ),
)

TABLE = (*EXCHANGE_SMTP, *EXCHANGE, *GOOGLE, *CHALLENGE)
