"""stunnel: TLS towards the server and nothing else, so its clients know the access token. What a TLS relay costs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

from tests.bench.candidate import STUNNEL, Candidate
from tests.bench.candidates.leaving import left_out, listening
from tests.bench.clients import Endpoint
from tests.bench.site import Bench, Servers
from tests.e2e.harness.ports import free_ports


@contextlib.asynccontextmanager
async def stunnel(bench: Bench, servers: Servers) -> AsyncIterator[Candidate | None]:
    if shutil.which("stunnel") is None:
        left_out(STUNNEL, "it is not installed (Debian: stunnel4)")
        yield None
        return
    folder = bench.folder("stunnel")
    ports = free_ports(3)
    config = folder / "stunnel.conf"
    ways = zip(("imap", "pop", "smtp"), ports, (servers.imap, servers.pop, servers.smtp), strict=True)
    config.write_text(
        "foreground = yes\npid =\nsyslog = no\n"
        f"output = {folder}/log\nclient = yes\n"
        f"CAfile = {bench.world.authority.certificate_file}\nverifyChain = yes\n"
        "checkHost = localhost\nsni = localhost\n"
        + "".join(f"[{name}]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{to}\n" for name, port, to in ways)
    )
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec("stunnel", config, stdout=output, stderr=output)
    try:
        await listening(ports[0], process)
        imap, pop, smtp = map(Endpoint, ports)
        yield Candidate(STUNNEL, "C", bench.with_token, imap, pop, smtp, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
