"""What Microsoft's sign-in service answers (``AADSTS`` codes), and what to do.

The codes, with what Microsoft says of them: https://login.microsoftonline.com/error
"""

from __future__ import annotations

import re

from emailproxy.oauth.advice.row import Row

ENTRA = "Entra admin center"
REGISTRATION = f"{ENTRA} > App registrations > your application"


def aadsts(codes: str, meaning: str, action: str, *, text: str = "", temporary: bool = False) -> Row:
    """`codes` are separated by spaces; `text` is what follows somewhere behind, where one code has several meanings."""
    pattern = re.compile(rf"AADSTS(?:{'|'.join(codes.split())})\b" + (f".{{0,200}}{text}" if text else ""))
    return Row("microsoft", pattern, meaning, action, temporary)


CLIENT = (
    aadsts(
        "7000218",
        "Microsoft wants a secret or certificate from this application, and none was sent",
        f"for an application without a secret switch on 'Allow public client flows' ({REGISTRATION} > Authentication); "
        "else set client_secret or jwt_certificate_path",
    ),
    aadsts(
        "700025",
        "Microsoft knows this application as a public client, which must not send a secret",
        "remove client_secret and jwt_certificate_path from the account's section",
    ),
    aadsts(
        "7000215",
        "the client secret is wrong; often the secret's ID was pasted in place of its value",
        f"set client_secret to the secret's Value ({REGISTRATION} > Certificates & secrets), or to a new one's",
    ),
    aadsts(
        "7000222",
        "the client secret has expired",
        f"make a new one ({REGISTRATION} > Certificates & secrets) and set client_secret to its Value",
    ),
    aadsts(
        "700016",
        "this tenant does not know the application",
        f"compare client_id with the Application (client) ID ({REGISTRATION} > Overview), and tenant or token_url with "
        "the tenant that it is registered in",
    ),
    aadsts(
        "7000112",
        "the application is disabled in this tenant",
        f"have an administrator set 'Enabled for users to sign in' to Yes ({ENTRA} > Enterprise applications > your "
        "application > Properties)",
    ),
    aadsts(
        "700027 50012",
        "Microsoft does not know the certificate that signed the request, or it has expired",
        f"upload the certificate of jwt_certificate_path ({REGISTRATION} > Certificates & secrets > Certificates), and "
        "check that it has not expired",
    ),
    aadsts(
        "700024",
        "the signed assertion is not valid at this time: a clock is wrong, or client_assertion_file was not renewed",
        "set this machine's clock (NTP), and check that whoever writes client_assertion_file renews it",
    ),
    aadsts(
        "70021 700211 700212 700213 7002137 7002138",
        "no federated credential of the application matches the assertion's issuer, subject and audience",
        "compare all three, letter case included, with those of the application "
        f"({REGISTRATION} > Certificates & secrets > Federated credentials)",
    ),
    Row(
        "microsoft",
        re.compile(r"AADSTS(?:9002326|9002327|700084)\b|'Single-Page Application' client-type"),
        "the redirect URI is registered for a web page's script (SPA), whose sign-ins other programs cannot use",
        f"move redirect_uri from 'Single-page application' to 'Mobile and desktop applications' ({REGISTRATION} > "
        "Authentication), then sign in again",
    ),
    aadsts(
        "50011 500113 900971 70004",
        "the redirect URI is not registered for this application",
        f"add redirect_uri exactly as configured, under 'Mobile and desktop applications' or 'Web' ({REGISTRATION} > "
        "Authentication)",
    ),
    aadsts(
        "1002012",
        "with client credentials the scope must be the resource's, ending in /.default",
        "set oauth2_scope = https://outlook.office365.com/.default",
    ),
    aadsts(
        "70011 28000 28002 28003 650053",
        "Microsoft does not know a scope that was asked for, or scopes of two resources are mixed",
        "for a person's sign-in use https://outlook.office.com/IMAP.AccessAsUser.All (or POP, or SMTP.Send) and "
        "offline_access in oauth2_scope, for client credentials https://outlook.office365.com/.default",
    ),
    aadsts(
        "500011 650052 650054",
        "the tenant does not have the service that the scope names",
        "check that tenant is the one with the mailbox, and oauth2_scope names its cloud's mail: "
        "https://outlook.office.com, 21Vianet https://partner.outlook.cn, US government https://outlook.office365.us",
    ),
    aadsts(
        "650056 650057 65005 65006",
        "the application's registration does not list what oauth2_scope asks for",
        "add IMAP.AccessAsUser.All, POP.AccessAsUser.All, SMTP.Send and offline_access "
        f"({REGISTRATION} > API permissions), and have consent granted",
    ),
    aadsts(
        "9001023 90130",
        "common and consumers do not have this flow, or are not for this application",
        "set tenant (or the tenant in token_url and permission_url) to the mailbox's own, its ID or domain",
    ),
    Row(
        "microsoft",
        re.compile(
            r"AADSTS(?:9002331|9002346)\b|not valid for the application's 'userAudience' configuration"
            r"|not enabled for consumers|AADSTS9002332\b"
        ),
        "the application is not for this kind of account: personal (outlook.com), or an organisation's",
        "set tenant to consumers for personal accounts, else to the tenant's ID; or change the supported account types "
        f"({REGISTRATION} > Authentication)",
    ),
    aadsts(
        "90027 500201",
        "personal accounts (outlook.com) have the v2.0 endpoints only",
        "use https://login.microsoftonline.com/consumers/oauth2/v2.0/token in token_url, and authorize in place of "
        "token in permission_url",
    ),
    aadsts(
        "50194 50020 50128 50059 90072 500208 50014 500212 500213",
        "the application and the account belong to different tenants, and token_url or tenant does not fit them",
        "set tenant (or the tenant's ID in token_url and permission_url) to the mailbox's own, and sign in with an "
        "account of that tenant",
    ),
    aadsts(
        "90002 900023",
        "Microsoft does not know this tenant in this cloud",
        "check tenant, or the tenant's ID or domain in token_url; the clouds of China (21Vianet) and of the US "
        "government have hosts of their own",
    ),
    aadsts(
        "900382 900432 900439 90038",
        "the application or the account belongs to another Microsoft cloud",
        "use that cloud's hosts in token_url and permission_url: login.partner.microsoftonline.cn for 21Vianet, "
        "login.microsoftonline.us for the US government",
    ),
    aadsts(
        "900144",
        "this is a v1.0 endpoint, which wants a resource",
        "set oauth2_resource in place of oauth2_scope (21Vianet: https://partner.outlook.cn), or use the v2.0 endpoint "
        "in token_url",
        text="'resource'",
    ),
    aadsts(
        "9002313 90014 900144",
        "Microsoft cannot read the request: a parameter is missing, or was cut off when it was pasted",
        "check client_id, client_secret, token_url and oauth2_scope for missing or extra characters, then sign in anew",
    ),
)

PERSON = (
    aadsts(
        "65001",
        "nobody has consented to this application yet",
        "sign in with 'emailproxy authorize ACCOUNT' and accept, or have an administrator grant consent "
        f"({REGISTRATION} > API permissions; openid, profile and offline_access, too)",
    ),
    aadsts(
        "90094 90095 900941",
        "the tenant wants an administrator's approval for this application",
        f"ask an administrator to approve it ({ENTRA} > Enterprise applications > your application > Permissions > "
        "Grant admin consent)",
    ),
    aadsts(
        "50105",
        "the application is open to assigned users only, and this account is not among them",
        f"have an administrator assign it ({ENTRA} > Enterprise applications > your application > Users and groups)",
    ),
    aadsts(
        "65004",
        "the application's permissions were declined at the sign-in",
        "sign in again and accept them, with 'emailproxy authorize ACCOUNT'",
    ),
    aadsts(
        "70043",
        "the tenant's sign-in frequency is over",
        "sign in again; an administrator can lengthen it in the tenant's Conditional Access policies",
    ),
    aadsts(
        "70000",
        "oauth2_scope was changed since the sign-in, or the application's access was withdrawn",
        "sign in again, with the mail program or 'emailproxy authorize ACCOUNT'",
        text="scopes requested",
    ),
    aadsts(
        "700082 70008 70000 50173 50078 50089 50132 50133",
        "the refresh token has expired, was not used for too long, or ended with a changed password",
        "sign in again, with the mail program or 'emailproxy authorize ACCOUNT'",
    ),
    aadsts(
        "54005",
        "the sign-in's code was used already",
        "let the mail program log in again for a new link",
    ),
    aadsts(
        "70019 70020",
        "nobody entered the device's code in time",
        "let the mail program log in again for a new code, or run 'emailproxy authorize ACCOUNT'",
    ),
    aadsts(
        "80001 80002 80005 80007 80014",
        "the organisation's own directory, which checks its passwords for Microsoft, does not answer",
        "wait a few minutes; if it stays so, tell the administrator",
        temporary=True,
    ),
    aadsts(
        "50126 50056 50055 50064 50144",
        "Microsoft does not take this user name and password",
        "check the mailbox's own password in the mail program; if it expired, change it in a browser first",
    ),
    aadsts(
        "50076 50079 50072 50074 50158",
        "Microsoft demands multi-factor authentication",
        "sign in with a browser: run 'emailproxy authorize ACCOUNT'; oauth2_flow = password cannot do it, set "
        "authorization_code in its place",
    ),
    aadsts(
        "50034 51004",
        "this tenant has no such user",
        "check the account's name, token_owner for a shared mailbox, and the tenant",
    ),
    aadsts(
        "50053",
        "Microsoft has locked the account for a while, after too many wrong passwords or from a suspicious address",
        "wait some minutes, then sign in once in a browser; check the password that the mail program has stored",
    ),
    aadsts(
        "50057",
        "the user account is disabled",
        f"have an administrator enable it ({ENTRA} > Users > the user > Account enabled)",
    ),
    aadsts(
        "53000 53001 53002 53003 53004 53009 53010 53011 530003 530004 530035 50131 50005 50097",
        "a Conditional Access policy of the tenant forbids this sign-in",
        "have an administrator except this application from it (the user's sign-in log in Entra names it); in place of "
        "device codes, which many tenants block, use a browser",
    ),
    aadsts(
        "90033 90024 90012 90055 90006 50033 50196 70012",
        "Microsoft's sign-in service is busy, or asks for fewer requests",
        "wait a few minutes; tokens are kept",
        temporary=True,
    ),
)

PERSONAL = (
    Row(
        "microsoft",
        re.compile(r"value for the input parameter 'scope' is not valid"),
        "Microsoft does not give this scope to personal accounts (outlook.com), or not to this application",
        "use scopes of https://outlook.office.com, not of outlook.office365.com, and list them "
        f"({REGISTRATION} > API permissions)",
    ),
)
"""What the sign-in service for personal accounts says, which has no codes."""

TABLE = (*CLIENT, *PERSON, *PERSONAL)
