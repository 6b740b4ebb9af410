"""One python-socketio server on aiohttp; sessions live in this process alone.

Prints `listening PORT NAME`; ends when its standard input does.
"""

import argparse
import asyncio
import sys

import socketio
from aiohttp import web

# Short, so that a run of a few seconds has pings in it.
PING_INTERVAL = 1


def application(name):
    server = socketio.AsyncServer(async_mode="aiohttp", ping_interval=PING_INTERVAL)
    previous = {}

    @server.event
    async def connect(sid, environ):
        previous[sid] = 0
        await server.emit("hello", name, to=sid)

    @server.event
    async def echo(sid, message):
        answer = {"message": message, "name": name, "previous": previous[sid]}
        previous[sid] = message["sequence"]
        return answer

    async def ready(request):
        return web.Response(text="ok\n")

    async def whoami(request):
        return web.Response(text=f"{name}\n")

    app = web.Application()
    app.router.add_get("/whoami", whoami)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/healthz", ready)
    server.attach(app)
    return app


async def serve(name):
    runner = web.AppRunner(application(name))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(f"listening {port} {name}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--name", required=True)
    asyncio.run(serve(arguments.parse_args().name))
