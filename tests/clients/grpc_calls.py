"""Makes every kind of gRPC call at an address, and says of each whether it went as it must.

Prints `ok WHAT` or `wrong WHAT: ...`, and `done` at the end.
"""

import argparse
import queue

import grpc


def check(what, found, expected):
    print(f"ok {what}" if found == expected else f"wrong {what}: {found!r}", flush=True)


def fails(what, call, code, details=None):
    try:
        found = call()
        print(f"wrong {what}: answered {found!r}", flush=True)
    except grpc.RpcError as error:
        check(what, error.code(), code)
        if details is not None:
            check(f"{what}: its words", error.details(), details)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--unavailable", action="store_true")
    options = parser.parse_args()
    channel = grpc.insecure_channel(options.address)
    unary = channel.unary_unary("/t.T/Unary")
    if options.unavailable:
        code = grpc.StatusCode.UNAVAILABLE
        fails("unavailable", lambda: unary(b"x", timeout=20), code, "connect_failed")
    else:
        answer, call = unary.with_call(b"one", timeout=20)
        check("unary", answer, b"one")
        check("trailing metadata", [k for k, _ in call.trailing_metadata()], ["x-instance"])
        big = bytes(range(256)) * 12_000
        check("a large message", unary(big, timeout=20), big)
        check("an empty message", unary(b"", timeout=20), b"")
        code = grpc.StatusCode.FAILED_PRECONDITION
        fails("a status", lambda: unary(b"fail", timeout=20), code, "as asked: \u00fc")
        numbers = [b"%d" % n for n in range(2000)]
        to_client = channel.unary_stream("/t.T/ToClient")
        check("a stream to the client", list(to_client(b"2000", timeout=20)), numbers)
        to_server = channel.stream_unary("/t.T/ToServer")
        total = b"%d" % sum(map(len, numbers))
        check("a stream to the server", to_server(iter(numbers), timeout=20), total)
        both = channel.stream_stream("/t.T/Both")
        asked = queue.Queue()
        answers = both(iter(asked.get, None), timeout=20)
        back = []
        for number in numbers[:200]:
            asked.put(number)
            back.append(next(answers))
        asked.put(None)
        check("both at once", (back, list(answers)), (numbers[:200], []))
        code = grpc.StatusCode.DEADLINE_EXCEEDED
        fails("a deadline", lambda: unary(b"hang", timeout=0.3), code)
        endless = channel.unary_stream("/t.T/Endless")(b"", timeout=20)
        check("a first message", next(endless), b"more")
        endless.cancel()
        fails("a cancellation", lambda: list(endless), grpc.StatusCode.CANCELLED)
        code = grpc.StatusCode.UNIMPLEMENTED
        fails("no such method", lambda: channel.unary_unary("/t.T/None")(b"", timeout=20), code)
        check("unary after all that", unary(b"last", timeout=20), b"last")
    print("done", flush=True)
