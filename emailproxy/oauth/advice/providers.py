"""What Google, Yahoo and the RFCs' own error codes mean at a sign-in, and what to do."""

from __future__ import annotations

from emailproxy.oauth.advice.row import row

GOOGLE_CLIENT = "Google Cloud console > APIs & Services > Credentials"
GOOGLE_AUDIENCE = "Google Cloud console > Google Auth Platform > Audience"
DELEGATION = "Google Admin console > Security > Access and data control > API controls > Domain-wide delegation"

GOOGLE = (
    row(
        "google",
        r"Token has been expired or revoked",
        "Google knows the refresh token no more: revoked, ended by a changed password, or by an application in Testing",
        f"sign in again; if that is needed every week, publish the application ({GOOGLE_AUDIENCE}): in Testing tokens "
        "end after 7 days",
    ),
    row(
        "google",
        r"\b(?:invalid_rapt|rapt_required)\b",
        "the Workspace's session control has ended the sign-in",
        "sign in again; so that it lasts, have the administrator mark the application as trusted and exempt from "
        "reauthentication (Google Admin console > Security > Google Cloud session control)",
    ),
    row(
        "google",
        r"Invalid device flow scope",
        "Google's device codes give no access to mail",
        "sign in with a browser: remove oauth2_flow = device, set permission_url = "
        "https://accounts.google.com/o/oauth2/auth; 'emailproxy authorize --paste' works where there is no browser",
    ),
    row(
        "google",
        r"Client is unauthorized to retrieve access tokens using this method|Unauthorized client or scope in request"
        r"|Requested client not authorized",
        "the service account may not act for this mailbox: domain-wide delegation is missing for it or for the scope",
        f"add the key file's client_id (a number) with the scope https://mail.google.com/ in {DELEGATION}",
    ),
    row(
        "google",
        r"Invalid JWT Signature",
        "Google does not know the key that signed the request: it was deleted or disabled",
        "make a new key (Google Cloud console > IAM & Admin > Service Accounts > Keys), and set client_secret to its "
        "file",
    ),
    row(
        "google",
        r"Invalid JWT: Token must be a short-lived token",
        "Google finds the signed request too old or from the future: this machine's clock is wrong",
        "set this machine's clock (NTP)",
    ),
    row(
        "google",
        r"Invalid email or User ID|Not a valid email\b",
        "Google's domain has no such mailbox to act for",
        "check the account's name: it must be the mailbox's primary address",
    ),
    row(
        "google",
        r"Invalid grant: account not found",
        "Google does not know the service account: it was deleted, or its key file was edited",
        "fetch a new key of it, or of a new one, and set client_secret to the key's file",
    ),
    row(
        "google",
        r"iam\.serviceAccounts\.(?:signBlob|signJwt|getAccessToken)|IAM Service Account Credentials API",
        "this machine's identity may not sign for the service account",
        "enable the IAM Service Account Credentials API, and grant it the role Service Account Token Creator on the "
        "service account",
    ),
    row(
        "google",
        r"\borg_internal\b",
        "the application is open to its own organisation only, and this account is not of it",
        f"sign in with an account of the organisation, or set the user type to External ({GOOGLE_AUDIENCE})",
    ),
    row(
        "google",
        r"admin_policy_enforced",
        "the Google Workspace administrator has not allowed this application",
        "ask the administrator to trust its client ID (Google Admin console > Security > Access and data control > API "
        "controls > App access control)",
    ),
    row(
        "google",
        r"has not completed the Google verification process",
        "the application is in Testing, and this account is not among its test users",
        f"add the account as a test user, or publish the application ({GOOGLE_AUDIENCE})",
    ),
    row(
        "google",
        r"redirect_uri_mismatch",
        "the redirect URI is not registered for this client",
        f"add redirect_uri exactly as configured to the client's authorised redirect URIs ({GOOGLE_CLIENT}), or make a "
        "client of the type Desktop app",
    ),
    row(
        "google",
        r"The OAuth client was (?:not found|deleted|disabled)|deleted_client|disabled_client",
        "Google does not know this client, or it was deleted or disabled",
        f"compare client_id with {GOOGLE_CLIENT}",
    ),
    row(
        "google",
        r"client_secret is missing|provided client secret is invalid",
        "Google wants the client's secret, and none or a wrong one was sent",
        f"set client_secret to the one shown in {GOOGLE_CLIENT}; Google's desktop clients have one, too",
    ),
    row(
        "google",
        r"Malformed auth code|invalid_grant[^a-z]{1,4}Bad Request",
        "Google does not take the code or the refresh token: used already, of another client, or expired",
        "sign in again, with the mail program or 'emailproxy authorize ACCOUNT'",
    ),
)

YAHOO = (
    row(
        "yahoo",
        r"specify a valid scope|scope not registered|\bmail-[rw]\b",
        "Yahoo and AOL give the mail scope to clients that they registered long ago only, and take no new ones",
        "use the client_id of a mail program that has it, with oauth2_scope = mail-w; or an app password, without "
        "emailproxy",
    ),
)

# RFC 6749 sections 4.1.2.1 and 5.2, RFC 8628 section 3.5, OpenID Connect Core section 3.1.2.6
RFC = (
    row(
        "any",
        r"\b(?:expired_token|code_expired)\b",
        "nobody entered the device's code in time",
        "let the mail program log in again for a new code, or run 'emailproxy authorize ACCOUNT'",
    ),
    row(
        "any",
        r"invalid_redirect_uri|redirect_uri.{0,40}\b(?:match|regist|allow|valid)"
        r"|\b(?:invalid|incorrect|unregistered|mismatch\w*)\b.{0,20} redirect_uri",
        "the provider does not take the redirect URI",
        "register redirect_uri with the provider exactly as it is configured",
    ),
    row(
        "any",
        r"\binvalid_client\b",
        "the provider does not know the client, or its secret is wrong or has expired",
        "compare client_id and client_secret with the application's registration at the provider",
    ),
    row(
        "any",
        r"\binvalid_scope\b",
        "the provider does not give the scope that was asked for",
        "check oauth2_scope against the provider's documentation and the application's permissions",
    ),
    row(
        "any",
        r"\bunauthorized_client\b",
        "the provider does not let this application use this flow",
        "permit the flow in the application's registration at the provider, or change oauth2_flow",
    ),
    row(
        "any",
        r"\b(?:access_denied|authorization_declined)\b",
        "the sign-in was declined, by the person or by a rule of the organisation",
        "sign in again and accept; if it is refused at once, ask the organisation's administrator to approve the "
        "application",
    ),
    row(
        "any",
        r"\bunsupported_grant_type\b",
        "the provider does not have this flow",
        "choose another oauth2_flow, or check token_url",
    ),
    row(
        "any",
        r"\b(?:interaction|login|consent)_required\b",
        "the provider wants to see the mailbox's owner again",
        "sign in again, with the mail program or 'emailproxy authorize ACCOUNT'",
    ),
    row(
        "any",
        r"\binvalid_grant\b",
        "the provider does not take the refresh token, the code or the password any more",
        "sign in again, with the mail program or 'emailproxy authorize ACCOUNT'",
    ),
    row(
        "any",
        r"\bslow_down\b",
        "the provider asks for fewer requests",
        "wait a minute",
        temporary=True,
    ),
    row(
        "any",
        r"\b(?:server_error|temporarily_unavailable)\b",
        "the provider has a fault of its own",
        "wait a few minutes; tokens are kept",
        temporary=True,
    ),
)

TABLE = (*GOOGLE, *YAHOO, *RFC)
