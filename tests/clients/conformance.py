"""Cases of RFC 6455 and RFC 7692 against one echo server, in the spirit of the Autobahn test suite.

Each case is a connection of its own: bytes are sent as they stand, legal or not, and everything
that comes back is noted until the server ends the connection. One line of JSON for each case tells
what came; nothing is judged here. Whoever reads the lines compares those of two runs. Knows sockets
only, and no library that speaks WebSocket.
"""

import argparse
import concurrent.futures
import hashlib
import json
import socket
import struct
import threading
import zlib
from dataclasses import dataclass, field

PATIENCE = 10
# More at once would measure the scheduler.
AT_ONCE = 8
MASK = bytes([0x37, 0xFA, 0x21, 0x3D])
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# They change from run to run, or concern one hop only.
PASSING_FIELDS = {"date", "set-cookie", "connection", "keep-alive", "x-request-id", "cache-control"}


@dataclass
class Frames:
    """To wait until this many frames have come back, or the end."""

    count: int


FINISH = "end the sending half"


@dataclass
class Case:
    name: str
    steps: list
    path: str = "/"
    fields: str = ""
    chop: int = 0
    handshake: str = (
        "GET {path} HTTP/1.1\r\nHost: app.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n")


def xor(payload):
    if not payload:
        return b""
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True, length=None):
    """`length` writes another length form than the shortest: 16 or 64 bits."""
    size, bit = len(payload), 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if length == 64 or size > 65535:
        head += struct.pack("!BQ", bit | 127, size)
    elif length == 16 or size > 125:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += bytes([bit | size])
    return head + MASK + xor(payload) if masked else head + payload


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def letters(size):
    """Text that doesn't repeat soon, so that a lost or doubled stretch shows."""
    return b"".join(b"%07d," % number for number in range(size // 8 + 1))[:size]


def deflated(payload):
    """RFC 7692 section 7.2.1, in the smallest window, which every server can read."""
    squeeze = zlib.compressobj(wbits=-9)
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


def polite(name, messages, answers, **more):
    """Messages, their answers, then a Close, which is answered."""
    return Case(name, [messages, Frames(answers), close(1000, b"done")], **more)


def sizes():
    for size in [0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 20]:
        for kind, opcode in [("text", TEXT), ("binary", BINARY)]:
            for chop in [0, 1, 997]:
                # A million writes of one byte say no more than 65,536 of them.
                if chop == 1 and size > (65536 if kind == "binary" else 128):
                    continue
                message = frame(opcode, letters(size))
                yield polite(f"{kind} of {size} in chops of {chop}", message, 1, chop=chop)
    many = b"".join(frame(BINARY, letters(size)) for size in range(300))
    for chop in [0, 1, 7, 997]:
        yield polite(f"300 messages in chops of {chop}", many, 300, chop=chop)
    for length in [16, 64]:
        yield polite(f"a short message with a {length} bit length", frame(TEXT, b"x", length=length), 1)


def fragments():
    parts = [b"first ", b"second ", b"third"]
    whole = [frame(TEXT, parts[0], fin=False), frame(CONTINUATION, parts[1], fin=False),
             frame(CONTINUATION, parts[2])]
    ping = frame(PING, b"between")
    for chop in [0, 1, 3]:
        end = f"in chops of {chop}"
        yield polite(f"three fragments {end}", b"".join(whole), 1, chop=chop)
        yield polite(f"pings between fragments {end}", ping.join(whole), 3, chop=chop)
        yield polite(f"unasked pongs between fragments {end}", frame(PONG, b"?").join(whole), 1, chop=chop)
        yield Case(f"a close between fragments {end}", [whole[0] + close(1000)], chop=chop)
    empty = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION)
    yield polite("empty fragments", empty, 1)
    small = [frame(BINARY if at == 0 else CONTINUATION, letters(256), fin=at == 999) for at in range(1000)]
    yield polite("a thousand fragments", b"".join(small), 1)
    yield Case("a continuation of nothing", [frame(CONTINUATION, b"x")])
    yield Case("an unfinished continuation of nothing", [frame(CONTINUATION, b"x", fin=False)])
    yield Case("a new message inside another", [whole[0] + frame(TEXT, b"new")])
    yield Case("an end inside a fragmented message", [whole[0], FINISH])
    for at in [1, 2, 5, 6, 9]:
        yield Case(f"an end after {at} bytes of a frame", [frame(TEXT, b"cut off")[:at], FINISH])


def controls():
    for size in [0, 1, 4, 124, 125]:
        for chop in [0, 1]:
            yield polite(f"a ping of {size} in chops of {chop}", frame(PING, letters(size)), 1, chop=chop)
        yield polite(f"an unasked pong of {size}", frame(PONG, letters(size)) + frame(PING), 1)
    yield polite("a ping of bytes that are no text", frame(PING, bytes(range(256))[131:]), 1)
    for opcode, name in [(PING, "ping"), (PONG, "pong"), (CLOSE, "close")]:
        for size in [126, 65536]:
            yield Case(f"a {name} of {size}", [frame(opcode, letters(size))])
        yield Case(f"a {name} in fragments", [frame(opcode, b"\x03\xe8", fin=False)])
    for chop in [0, 1, 997]:
        flood = b"".join(frame(PING, b"%d" % number) for number in range(1000))
        yield polite(f"a flood of pings in chops of {chop}", flood, 1000, chop=chop)
    mixed = b"".join(frame(PING, letters(125)) + frame(TEXT, b"%d" % number) for number in range(100))
    yield polite("pings and messages in turn", frame(PING, b"only") + mixed[: 131 * 20], 1 + 20)


def closes():
    codes = [0, 1, 999, *range(1000, 1017), 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535]
    for code in codes:
        yield Case(f"close {code}", [close(code)])
        yield Case(f"close {code} with a reason", [close(code, b"because")])
        query = f"/close?code={code}&reason=because"
        if 1000 <= code < 5000 and code not in (1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999):
            steps = [frame(TEXT, b"go"), Frames(1), close(code, b"because")]
            yield Case(f"the server closes with {code}", steps, path=query)
    yield Case("an empty close", [close()])
    yield Case("a close of one byte", [frame(CLOSE, b"\x03")])
    for size in [1, 122, 123, 124]:
        yield Case(f"a close with a reason of {size}", [close(1000, letters(size))])
    for reason in ["grüß euch", "κόσμε", "\U0001f600" * 30]:
        yield Case(f"a close that says {reason}", [close(1000, reason.encode())])
    for name, reason in NOT_UTF8.items():
        yield Case(f"a close whose reason has {name}", [close(1000, reason)])
    for chop in [1, 3]:
        yield Case(f"a close in chops of {chop}", [close(4000, b"in parts")], chop=chop)
    yield Case("two closes", [close(1000) + close(1001)])
    yield Case("a ping after a close", [close(1000) + frame(PING)])
    yield Case("a message after a close", [close(1000) + frame(TEXT, b"late")])
    yield Case("a close, then an end", [close(1000), FINISH])
    yield Case("an end at once", [FINISH])
    yield Case("an end after a message", [frame(TEXT, b"all"), Frames(1), FINISH])
    yield Case("the server ends its half", [frame(TEXT, b"go")], path="/half")


NOT_UTF8 = {
    "a lone continuation byte": b"ok\x80",
    "a truncated sequence": b"ok\xe2\x82",
    "a surrogate": b"ok\xed\xa0\x80",
    "an overlong slash": b"ok\xc0\xaf",
    "a byte that never occurs": b"ok\xff",
    "more than U+10FFFF": b"ok\xf4\x90\x80\x80",
}


def texts():
    words = "κόσμε, ok, \U0001f600".encode()
    for chop in [0, 1]:
        yield polite(f"text of many bytes a letter in chops of {chop}", frame(TEXT, words), 1, chop=chop)
    for at in range(1, len(words), 3):
        halves = frame(TEXT, words[:at], fin=False) + frame(CONTINUATION, words[at:])
        yield polite(f"text cut at byte {at}", halves, 1)
    for name, text in NOT_UTF8.items():
        for chop in [0, 1]:
            yield Case(f"text with {name} in chops of {chop}", [frame(TEXT, text)], chop=chop)
        halves = frame(TEXT, text[:3], fin=False) + frame(CONTINUATION, text[3:])
        yield Case(f"text in fragments with {name}", [halves])
        yield polite(f"binary with {name}", frame(BINARY, text), 1)


def nonsense():
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]:
        yield Case(f"opcode {opcode}", [frame(opcode, b"what")])
        yield Case(f"opcode {opcode} after a message", [frame(TEXT, b"ok"), Frames(1), frame(opcode)])
    for rsv in range(1, 8):
        yield Case(f"reserved bits {rsv}", [frame(TEXT, b"what", rsv=rsv)])
        yield Case(f"reserved bits {rsv} of a ping", [frame(PING, b"what", rsv=rsv)])
    for opcode in [TEXT, BINARY, PING, CLOSE]:
        yield Case(f"opcode {opcode} without a mask", [frame(opcode, b"\x03\xe8", masked=False)])
    yield Case("no mask after a message", [frame(TEXT, b"ok"), Frames(1), frame(TEXT, b"what", masked=False)])
    yield Case("a length of 2^63", [bytes([0x82, 0xFF, 0x80]) + bytes(7) + MASK, FINISH])
    yield Case("no frames at all", [b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"])


OFFERS = {
    "plain": "permessage-deflate",
    "window": "permessage-deflate; client_max_window_bits",
    "small windows": "permessage-deflate; client_max_window_bits=10; server_max_window_bits=10",
    "no takeover": "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "two": "permessage-deflate; server_max_window_bits=9, permessage-deflate",
}


def compression():
    for name, offer in OFFERS.items():
        fields = f"Sec-WebSocket-Extensions: {offer}\r\n"
        for size in [0, 1, 125, 126, 4000, 65536, 1 << 20]:
            for chop in [0, 997]:
                message = frame(TEXT, deflated(letters(size)), rsv=4)
                yield polite(f"{name}: {size} in chops of {chop}", message, 1, fields=fields, chop=chop)
        squeezed = deflated(letters(500))
        parts = [frame(TEXT, squeezed[:9], fin=False, rsv=4), frame(CONTINUATION, squeezed[9:90], fin=False),
                 frame(CONTINUATION, squeezed[90:])]
        yield polite(f"{name}: fragments", b"".join(parts), 1, fields=fields)
        yield polite(f"{name}: pings between", frame(PING, b"?").join(parts), 3, fields=fields)
        yield polite(f"{name}: not compressed", frame(BINARY, letters(300)), 1, fields=fields)
        several = frame(TEXT, deflated(letters(200)), rsv=4) * 20
        yield polite(f"{name}: 20 messages", several, 20, fields=fields)
        wrong = [frame(BINARY, b"\xff" * 40, rsv=4), frame(PING, b"", rsv=4),
                 parts[0] + frame(CONTINUATION, b"", rsv=4), frame(TEXT, deflated(b"\xff\xfe"), rsv=4)]
        for number, bytes_ in enumerate(wrong):
            yield Case(f"{name}: wrong {number}", [bytes_], fields=fields)


def handshakes():
    def talk(name, fields):
        return polite(f"handshake: {name}", frame(TEXT, b"hello"), 1, fields=fields)

    for name in ["v1.echo", "v2.echo", "v1.echo, v2.echo", "v2.echo, v1.echo", "unknown, v1.echo"]:
        yield talk(f"subprotocol {name}", f"Sec-WebSocket-Protocol: {name}\r\n")
    yield talk("subprotocols in two fields", "Sec-WebSocket-Protocol: no\r\nSec-WebSocket-Protocol: v1.echo\r\n")
    for offer in ["x-unknown", "x-unknown; a=1, permessage-deflate", "permessage-deflate; x-wrong=1",
                  "permessage-deflate; server_max_window_bits=99"]:
        yield Case(f"handshake: extension {offer}", [frame(TEXT, b"hello"), Frames(1), close(1000)],
                   fields=f"Sec-WebSocket-Extensions: {offer}\r\n")
    yield talk("origin and cookies", "Origin: http://app.test\r\nCookie: a=1; b=2\r\n")
    yield talk("a long field", f"X-Long: {'x' * 4000}\r\n")
    base = Case("", []).handshake
    wrong = {
        "version 12": base.replace("Version: 13", "Version: 12"),
        "a short key": base.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        "subprotocols that are no list": base.replace("{fields}", "Sec-WebSocket-Protocol: a b\r\n"),
    }
    for name, handshake in wrong.items():
        yield Case(f"handshake: {name}", [FINISH], handshake=handshake)


def cases():
    for group in [sizes, fragments, controls, closes, texts, nonsense, compression, handshakes]:
        yield from group()


@dataclass
class Received:
    """What a reader of its own collects, so that a sender never waits for a full buffer."""

    head: bytes = b""
    body: bytearray = field(default_factory=bytearray)
    frames: list = field(default_factory=list)
    end: str = ""
    parsed: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def read(self, connection):
        data, end = b"", "end"
        try:
            while chunk := connection.recv(1 << 16):
                with self.changed:
                    data = self.take(data + chunk if not self.head else chunk)
                    self.changed.notify()
        except ConnectionResetError:
            end = "reset"
        except TimeoutError:
            end = "nothing more"
        with self.changed:
            self.end = end
            self.changed.notify()

    def take(self, data):
        if not self.head:
            head, mark, rest = data.partition(b"\r\n\r\n")
            if not mark:
                return data
            self.head, data = head, rest
        self.body += data
        while size := self.frame_size():
            self.frames.append(f"{self.body[self.parsed]:02x}:{size}")
            self.parsed += size
        return b""

    def frame_size(self):
        have = len(self.body) - self.parsed
        if have < 2:
            return 0
        short = self.body[self.parsed + 1] & 0x7F
        wide = {126: 2, 127: 8}.get(short, 0)
        size = int.from_bytes(self.body[self.parsed + 2:self.parsed + 2 + wide], "big") if wide else short
        return 2 + wide + size if have >= 2 + wide + size else 0

    def wait(self, done):
        with self.changed:
            self.changed.wait_for(lambda: self.end or done(), PATIENCE)

    def told(self):
        start, *fields = self.head.decode("latin-1").split("\r\n")
        kept = sorted(line for line in fields if line.split(":")[0].lower() not in PASSING_FIELDS)
        kept = [f"{name.lower()}:{value}" for name, value in (line.split(":", 1) for line in kept)]
        # In full where it is short, since that is what a reader of a failure wants.
        body = self.body.hex() if len(self.body) <= 300 else hashlib.sha256(self.body).hexdigest()
        return {"start": start, "fields": sorted(kept), "length": len(self.body), "body": body,
                "frames": " ".join(self.frames[:40]), "end": self.end}


def run(case, host, port):
    received = Received()
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = threading.Thread(target=received.read, args=[connection])
        reader.start()
        try:
            connection.sendall(case.handshake.format(path=case.path, fields=case.fields).encode())
            received.wait(lambda: received.head)
            switched = received.head.startswith(b"HTTP/1.1 101 ")
            for step in case.steps if switched else [FINISH]:
                take(step, connection, received, case.chop)
        except (BrokenPipeError, ConnectionResetError):
            # The server left before it had everything; what it said is noted.
            pass
        reader.join()
    return {"case": case.name, **received.told()}


def take(step, connection, received, chop):
    if isinstance(step, Frames):
        received.wait(lambda: len(received.frames) >= step.count)
    elif step == FINISH:
        connection.shutdown(socket.SHUT_WR)
    else:
        for at in range(0, len(step), chop or len(step)):
            connection.sendall(step[at:at + chop] if chop else step)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--address", required=True)
    options.add_argument("--only", default="")
    options = options.parse_args()
    host, port = options.address.split(":")
    wanted = [case for case in cases() if options.only in case.name]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for told in pool.map(lambda case: run(case, host, int(port)), wanted):
            print(json.dumps(told), flush=True)
    print(json.dumps({"finished": len(wanted)}), flush=True)


if __name__ == "__main__":
    main()
