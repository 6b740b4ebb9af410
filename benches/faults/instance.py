"""An instance: counts the requests of each session, and misbehaves when a line on its standard input
says so.

    python3 instance.py NAME ADDRESS PORT

`GET /readyz` and `GET /healthz` are its checks. Any other request is an app's: it takes `LATENCY`
and is answered with the instance's name, the life it is in, and how many requests of the session
(field `X-Session`) this life has had. A line `did N` on its standard output says that the POST
whose field `X-Id` is N was acted upon. SIGTERM ends it as an app server ends: no new connections,
what is under way is finished, kept connections are closed.
"""

import asyncio, os, random, signal, sys

LATENCY = 0.02


class Instance:
    def __init__(self, name, address, port):
        self.name, self.address, self.port = name, address, port
        self.counts = {}
        self.latency, self.error_share = LATENCY, 0.0
        self.ready = self.alive = True
        self.server, self.connections, self.busy = None, set(), set()

    async def listen(self):
        self.server = await asyncio.start_server(self.serve, self.address, self.port, backlog=1024)

    async def refuse(self):
        """The port is closed while the process lives on."""
        self.server.close()
        for connection in list(self.connections):
            connection.transport.abort()

    async def stop(self):
        self.server.close()
        for connection in self.connections - self.busy:
            connection.close()
        while self.busy:
            await asyncio.sleep(0.01)
        # What was written last is still to leave.
        await asyncio.sleep(0.02)
        os._exit(0)

    async def obey(self, line):
        word, *value = line.split()
        match word:
            case "refuse": await self.refuse()
            case "listen": await self.listen()
            case "slow": self.latency = LATENCY * float(value[0])
            case "errors": self.error_share = float(value[0])
            case "ready": self.ready = value[0] == "yes"
            case "alive": self.alive = value[0] == "yes"

    async def serve(self, reader, writer):
        self.connections.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.busy.add(writer)
                status, body = await self.answer(head, reader)
                last = b"" if self.server.is_serving() else b"Connection: close\r\n"
                writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), last, body))
                self.busy.discard(writer)
                if last:
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections.discard(writer)
            self.busy.discard(writer)
            writer.close()

    async def answer(self, head, reader):
        lines = head.split(b"\r\n")
        method, path, _ = lines[0].split(b" ")
        if path == b"/readyz":
            return (200 if self.ready else 503), b""
        if path == b"/healthz":
            return (200 if self.alive else 503), b""
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        if length := int(fields.get(b"content-length", 0)):
            await reader.readexactly(length)
        await asyncio.sleep(self.latency)
        if random.random() < self.error_share:
            return 500, b""
        session = fields[b"x-session"]
        count = self.counts[session] = self.counts.get(session, 0) + 1
        if method == b"POST":
            os.write(1, b"did %s\n" % fields[b"x-id"])
        return 200, b"%s %d %d" % (self.name.encode(), os.getpid(), count)


async def main(name, address, port):
    instance = Instance(name, address, int(port))
    await instance.listen()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(instance.stop()))
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("listening", flush=True)
    while line := await orders.readline():
        await instance.obey(line.decode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
