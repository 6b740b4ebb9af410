"""Clients: sessions with a cookie jar each, at a fixed rate that no answer slows down (open loop).

A request has a time at which it is due. Its wait counts from there, also where no connection was
free. As a browser would, a session opens a further connection when those it has are busy. After
`LIFE` requests another session takes its place, with an empty jar, as soon as it has its cookie.
"""

import asyncio, itertools, time
from dataclasses import dataclass, field

GIVE_UP = 15.0
LIFE = 40
POST_SHARE = 0.1


@dataclass
class Answer:
    session: int
    method: str
    due: float
    done: float = 0.0
    error: str = ""
    instance: str = ""
    life: int = 0
    count: int = 0


@dataclass
class Session:
    number: int
    cookies: dict = field(default_factory=dict)
    idle: list = field(default_factory=list)
    gone: bool = False

    def keep(self, connection):
        if self.gone:
            connection[1].close()
        else:
            self.idle.append(connection)

    def leave(self):
        self.gone = True
        while self.idle:
            self.idle.pop()[1].close()


class Load:
    def __init__(self, port, sessions, rate):
        self.port, self.rate = port, rate
        self.numbers = itertools.count()
        self.sessions = [Session(next(self.numbers)) for _ in range(sessions)]
        self.answers, self.tasks = [], set()
        self.ids = itertools.count(1)
        self.running = True

    async def begin(self):
        """Each session's first request brings its cookie; then the clock starts."""
        for at in range(0, len(self.sessions), 20):
            some = self.sessions[at:at + 20]
            await asyncio.gather(*(self.ask(session, "GET", time.time()) for session in some))
        wrong = [answer.error for answer in self.answers if answer.error]
        if wrong:
            raise RuntimeError(f"before any fault: {wrong[:3]}")
        self.clock = asyncio.ensure_future(self.tick())

    async def tick(self):
        start, every = time.time(), int(1 / POST_SHARE)
        for number in itertools.count():
            due = start + number / self.rate
            if (ahead := due - time.time()) > 0:
                await asyncio.sleep(ahead)
            if not self.running:
                return
            # Sessions take turns; each begins, and has its POSTs, at times of its own.
            turn, place = divmod(number, len(self.sessions))
            if (turn + place) % LIFE == LIFE - 1:
                work = self.replace(place, due)
            else:
                work = self.ask(self.sessions[place], "POST" if (turn + place) % every == 0 else "GET", due)
            task = asyncio.ensure_future(work)
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def replace(self, place, due):
        newcomer = Session(next(self.numbers))
        await self.ask(newcomer, "GET", due)
        if newcomer.cookies:
            self.sessions[place].leave()
            self.sessions[place] = newcomer

    async def end(self):
        self.running = False
        await self.clock
        if self.tasks:
            await asyncio.wait(self.tasks)
        for session in self.sessions:
            session.leave()

    async def ask(self, session, method, due):
        answer = Answer(session.number, method, due)
        try:
            await asyncio.wait_for(self.exchange(session, method, answer), GIVE_UP)
        except asyncio.TimeoutError:
            answer.error = "no answer"
        except (OSError, asyncio.IncompleteReadError) as error:
            answer.error = f"closed: {type(error).__name__}"
        answer.done = time.time()
        self.answers.append(answer)

    async def connection(self, session):
        while session.idle:
            reader, writer = session.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, session, method, answer):
        reader, writer = await self.connection(session)
        try:
            cookies = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
            body = "x" * 100 if method == "POST" else ""
            writer.write((f"{method} /{session.number} HTTP/1.1\r\nHost: x\r\nX-Session: {session.number}\r\n"
                          f"X-Id: {next(self.ids)}\r\n"
                          + (f"Cookie: {cookies}\r\n" if cookies else "")
                          + (f"Content-Length: {len(body)}\r\n" if body else "")
                          + f"\r\n{body}").encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            status, length, keep = int(head[0].split()[1]), 0, True
            for line in head[1:]:
                name, _, value = line.partition(":")
                match name.lower(), value.strip():
                    case "content-length", value: length = int(value)
                    case "connection", value: keep = value.lower() != "close"
                    case "set-cookie", value:
                        name, _, value = value.partition(";")[0].partition("=")
                        session.cookies[name.strip()] = value
            text = (await reader.readexactly(length)).decode() if length else ""
        except BaseException:
            writer.transport.abort()
            raise
        if keep:
            session.keep((reader, writer))
        else:
            writer.close()
        if status != 200:
            answer.error = str(status)
        else:
            name, life, count = text.split()
            answer.instance, answer.life, answer.count = name, int(life), int(count)
