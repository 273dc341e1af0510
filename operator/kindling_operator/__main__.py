"""`python -m kindling_operator SETTINGS`: the operator.

Of several replicas the one that holds the Lease works, and the others stand by. Whatever ends its work (a signal, a
lost Lease, a watch that failed for good) ends the process, and Kubernetes starts it again: there is one way to begin.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from kubernetes.aio.config import ConfigException
from pydantic import ValidationError

from kindling_api.errors import EXIT_DONE, EXIT_OURS, EXIT_USER
from kindling_operator import logs
from kindling_operator.cluster import connect
from kindling_operator.leader import Leader
from kindling_operator.lease import LeaderLease, LostError
from kindling_operator.settings import Settings, read_settings

log = logging.getLogger("kindling_operator")

LAST_SECONDS = 8.0
"""For what is under way when the process is to end; it is harmless to cut off."""


def main() -> None:
    """Read the command line and operate."""
    parser = argparse.ArgumentParser(prog="python -m kindling_operator", description="The operator of Kindling.")
    parser.add_argument("settings", type=Path, help="the JSON file that the chart writes")
    parser.add_argument("--port", type=int, default=8080, help="where /healthz, /readyz and /metrics are answered")
    parser.add_argument("--verbose", action="store_true", help="log what is asked of the API server, too")
    arguments = parser.parse_args()
    logs.set_up(verbose=arguments.verbose)
    try:
        settings = read_settings(arguments.settings)
    except (OSError, ValidationError) as error:
        log.error("the settings cannot be read: %s", error)
        sys.exit(EXIT_USER)
    code = asyncio.run(operate(settings, port=arguments.port))
    logging.shutdown()
    os._exit(code)  # not held up by threads or connections: nothing here needs a last word


async def operate(settings: Settings, *, port: int) -> int:
    """Stand by, lead, and end with an exit code."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
    lease = LeaderLease(namespace=settings.namespace, identity=identity)
    try:
        control, cluster = await connect(), await connect(may_write=lease.held)
    except ConfigException as error:
        log.error("there is neither a service account nor a kubeconfig: %s", error)
        return EXIT_USER
    leader = Leader(settings, cluster, lease, control, identity=identity)
    probes = await leader.health.serve(port)
    work = asyncio.create_task(leader.run())
    await asyncio.wait({work, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
    code = _outcome(work)
    work.cancel()
    await asyncio.wait({work}, timeout=LAST_SECONDS)
    await lease.release(control)
    for connection in (cluster, control):
        await connection.close()
    await probes.cleanup()
    return code


def _outcome(work: asyncio.Task[None]) -> int:
    if not work.done() or work.cancelled() or (error := work.exception()) is None:
        log.info("the operator ends, as it was asked to")
        return EXIT_DONE
    log.error("the operator ends: %s", error, exc_info=None if isinstance(error, LostError) else error)
    return EXIT_OURS


if __name__ == "__main__":
    main()
