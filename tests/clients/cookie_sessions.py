"""Several `requests` sessions, each with its cookie jar, taking turns at the Flask app.

Prints one JSON `summary` line: a login that another instance does not know is a lost session.
"""

import argparse
import collections
import json

import requests

REQUEST_TIMEOUT = 10
# Not a multiple of the number of instances: otherwise plain round robin would bring every session
# back to its instance by chance, and the run without affinity would prove nothing.
SESSIONS = 31


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()

    sessions = [requests.Session() for _ in range(arguments.sessions)]
    homes = [session.post(f"{arguments.url}/login", timeout=REQUEST_TIMEOUT).json()["name"]
             for session in sessions]
    statuses = collections.Counter()
    wrong_counts = 0
    moves = 0
    for expected in range(1, arguments.rounds + 1):
        for session, home in zip(sessions, homes):
            response = session.post(f"{arguments.url}/count", timeout=REQUEST_TIMEOUT)
            statuses[str(response.status_code)] += 1
            answer = response.json()
            wrong_counts += answer.get("count") != expected
            moves += answer["name"] != home
    print(json.dumps({
        "event": "summary",
        "sessions": len(sessions),
        "requests": sum(statuses.values()),
        "statuses": statuses,
        "wrong_counts": wrong_counts,
        "moves": moves,
        "cookies": collections.Counter(
            " ".join(sorted(session.cookies.keys())) for session in sessions
        ),
        "instances": collections.Counter(homes),
    }), flush=True)


if __name__ == "__main__":
    main()
