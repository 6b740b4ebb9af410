"""A gRPC server of every kind of call, from the library that users have; messages are bare bytes.

Prints `listening PORT NAME`; ends when standard input does. `cancelled` is printed for each call that
its client gave up.
"""

import argparse
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc


def given_up(context):
    """An event for the end of a call that nothing but its client ends."""
    over = threading.Event()

    def tell():
        over.set()
        print("cancelled", flush=True)

    context.add_callback(tell)
    return over


def unary(request, context):
    context.set_trailing_metadata([("x-instance", NAME)])
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: \u00fc")
    if request == b"hang":
        given_up(context).wait(30)
    return request


def to_client(request, context):
    for n in range(int(request)):
        yield b"%d" % n


def to_server(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request


def endless(request, context):
    over = given_up(context)
    while not over.wait(0.01):
        yield b"more"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    NAME = parser.parse_args().name
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ToClient": grpc.unary_stream_rpc_method_handler(to_client),
        "ToServer": grpc.stream_unary_rpc_method_handler(to_server),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Endless": grpc.unary_stream_rpc_method_handler(endless),
    }
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening {port} {NAME}", flush=True)
    sys.stdin.read()
    server.stop(0)
