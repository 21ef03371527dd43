"""emailproxy: a local OAuth 2.0 proxy for IMAP, POP3 and SMTP.

A mail program logs in here with a password; we log in to its provider with an access token, and pass the octets.

The way of one login::

    client ── net.listener ── net.session ── wire.{imap,pop3,smtp} ── "NeedToken" ── oauth.broker
                                  │                                                   │       │
                               net.dial, net.tls                              store (sealed)  provider, oauth.redirect
                                  │
    server ──────────────── net.relay: after the login, octets both ways

- `wire` holds one login dialogue a protocol, both sides of the proxy, as pure code: events in, effects out. It does no
  I/O, so its tests feed it every split of every login.
- `net` accepts connections, performs a dialogue's effects over two transports, and relays. It knows `oauth` only as a
  `TokenSource`. With `prewarm`, it opens connections to mail servers ahead of their logins.
- `oauth` turns a login into an access token: `broker` decides (cached? refresh? consent?), `flows` chooses the grant
  (`generic` by the RFCs, `microsoft` by msal, `google` by google-auth), `keeper` renews ahead, `consent` keeps what
  waits for a person, `redirect` takes the provider's answers, `advice` knows what their errors mean, `hooks` tell it.
- `store` keeps records and pending consents in a folder of INI files; `store.sealing`, `store.slots`
  and `store.warm` alone touch key material.
- `config` makes frozen models of an INI file, and finds all of its faults at once; `config.cached` and
  `config.importing` read what other programs keep of accounts, `config.outbound` says which proxy a connection takes.
- `service` builds all of it, and puts another configuration in force as sessions stand.
- `admin` is a running server's control socket: `routes` answers, `api` carries that by HTTP, `client` asks.
- `workers` has several processes serve on the same ports (`workers = N`): one starts the others and answers for them.
- `check` tries every link of the chain; `certificates` makes certificates, for `emailproxy certificate` and the demo;
  `demo` is an embedded provider and mailbox to try it all with; `cli` is the command line.

Imports go one way: ``errors, names, secret`` <- ``config, wire, store`` <- ``oauth, net`` <- ``service`` <-
``admin, check, demo`` <- ``workers`` <- ``cli``; ``certificates`` imports none of these. A test enforces it.
"""

__version__ = "0.1.0"
