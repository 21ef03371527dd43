"""`workers = N`: several processes serve one configuration, on the same ports.

::

    emailproxy serve ─ crew ─┬─ nursery: one thread, forks workers
      configuration, ports,  ├─ member ── channel ── worker 1: a whole Service
      log, control socket    └─ member ── channel ── worker 2: another

- The process that the user started serves no mail. Its `crew` opens the `ports`, starts the workers, starts those that
  die again, answers for all of them on the control socket (`routes`, `merging`), and counts the sessions of accounts
  that may only have so many (`Places`).
- A worker that hangs keeps getting its share of new connections: its `member` asks all the time whether it is there,
  and kills one that says nothing for half a minute. Nothing else waits for it: `status` and a reload name it.
- The `nursery` is forked before there is any thread or event loop, which no fork is safe with, and forks the workers.
  Those share its memory until they write to it. Without it, they serve on until one of them ends; then all do, for the
  service manager to start them anew. Without the first process, it kills those that do not end by themselves.
- A `worker` is a `Service` as any other, whose sockets come by its `channel`. What it logs goes to the first process,
  which has the log file. It ends when that one does.
- Tokens, passwords and consents are coordinated by the state folder's locks alone, as with any other process that
  shares it. One of the workers listens for the provider's redirects; a consent that it completes is everybody's.
- A worker's connections are its own: those in all, those by address, and those without a login are counted in each
  worker, and so are wrong passwords.
"""
