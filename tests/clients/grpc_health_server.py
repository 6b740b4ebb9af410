"""A gRPC server that has nothing but the health service, from the library that users have.

Prints `listening PORT NAME`. A line `SERVICE STATUS` on standard input sets a status (`-` is the
server as a whole), and is answered by `set`; ends when standard input does.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    name = parser.parse_args().name
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening {port} {name}", flush=True)
    for line in sys.stdin:
        service, status = line.split()
        status = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
        servicer.set("" if service == "-" else service, status)
        print("set", flush=True)
    server.stop(0)
