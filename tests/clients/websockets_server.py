"""An echo server made of `websockets`, with its compression and subprotocols; the paths are those of
ws_server.mjs.

Prints `listening PORT NAME`; ends when its standard input does.
"""

import argparse
import asyncio
import logging
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(connection):
    url = urlsplit(connection.request.path)
    query = parse_qs(url.query)
    try:
        async for message in connection:
            if url.path == "/close":
                code = int(query.get("code", ["1000"])[0])
                await connection.close(code, query.get("reason", [""])[0])
            elif url.path == "/half":
                connection.transport.write_eof()
            else:
                await connection.send(message)
    except ConnectionClosed:
        # What a client sends wrong is the client's to see, in the Close that it gets.
        pass


async def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--name", required=True)
    options = options.parse_args()
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    subprotocols = ["v2.echo", "v1.echo"]
    # No pings of its own: they would come at another moment in each run.
    server = await serve(
        echo, "127.0.0.1", 0, subprotocols=subprotocols, max_size=None, ping_interval=None,
        select_subprotocol=lambda _, offered: next((n for n in subprotocols if n in offered), None))
    print(f"listening {server.sockets[0].getsockname()[1]} {options.name}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close(close_connections=False)


asyncio.run(main())
