"""Several python-socketio clients (requests and websocket-client below), one thread each.

Prints one JSON `summary` line; every acknowledgement is checked against what was sent.
"""

import argparse
import collections
import concurrent.futures
import json

import socketio

ACKNOWLEDGEMENT_TIMEOUT = 10


class Outcome:
    def __init__(self):
        self.acknowledged = 0
        self.mismatched = 0
        self.out_of_order = 0
        self.disconnects = 0
        self.errors = []
        self.instances = set()


def run_client(number, url, transports, messages):
    outcome = Outcome()
    client = socketio.Client(reconnection=False)
    client.on("disconnect", lambda *_: setattr(outcome, "disconnects", outcome.disconnects + 1))
    try:
        client.connect(url, transports=transports, wait_timeout=ACKNOWLEDGEMENT_TIMEOUT)
        for sequence in range(1, messages + 1):
            message = {"sequence": sequence, "payload": f"client {number} says {sequence}"}
            answer = client.call("echo", message, timeout=ACKNOWLEDGEMENT_TIMEOUT)
            outcome.acknowledged += 1
            outcome.instances.add(answer["name"])
            outcome.mismatched += answer["message"] != message
            outcome.out_of_order += answer["previous"] != sequence - 1
    except (socketio.exceptions.SocketIOError, ValueError) as error:
        outcome.errors.append(f"{type(error).__name__}: {error}")
    # No polite leave: the library waits for its open long poll to time out, 25 s, and the
    # connections end with the process all the same.
    return outcome


def summary(outcomes, transports):
    return {
        "event": "summary",
        "transports": ",".join(transports),
        "clients": len(outcomes),
        "acknowledged": sum(outcome.acknowledged for outcome in outcomes),
        "mismatched": sum(outcome.mismatched for outcome in outcomes),
        "out_of_order": sum(outcome.out_of_order for outcome in outcomes),
        "disconnects": sum(outcome.disconnects for outcome in outcomes),
        "moves": sum(max(0, len(outcome.instances) - 1) for outcome in outcomes),
        "errors": collections.Counter(error for outcome in outcomes for error in outcome.errors),
        "instances": collections.Counter(name for outcome in outcomes for name in outcome.instances),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--transports", default="polling,websocket")
    parser.add_argument("--clients", type=int, default=9)
    parser.add_argument("--messages", type=int, default=20)
    arguments = parser.parse_args()
    transports = arguments.transports.split(",")
    with concurrent.futures.ThreadPoolExecutor(arguments.clients) as threads:
        futures = [
            threads.submit(run_client, number, arguments.url, transports, arguments.messages)
            for number in range(arguments.clients)
        ]
        outcomes = [future.result() for future in futures]
    print(json.dumps(summary(outcomes, transports)), flush=True)


if __name__ == "__main__":
    main()
