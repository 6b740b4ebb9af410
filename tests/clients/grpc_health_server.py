"""A gRPC server that has nothing but the health service, from the library that users have.

Prints `listening PORT NAME`. A line `SERVICE STATUS` on standard input sets a status (`-` is the
server as a whole), and is answered by `set`; ends when standard input does. With `--cert` and `--key`,
both files in PEM, it speaks TLS.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    options = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if options.cert:
        with open(options.key, "rb") as key, open(options.cert, "rb") as cert:
            credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening {port} {options.name}", flush=True)
    for line in sys.stdin:
        service, status = line.split()
        status = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
        servicer.set("" if service == "-" else service, status)
        print("set", flush=True)
    server.stop(0)
