"""A gRPC server, and a client that reaches it through a proxy: Python's grpcio on both sides.

Prints the server's port, reads the proxy's address from standard input, and prints one
line for each thing that held. Ends with status 1 at the first one that did not.
"""

import sys
import threading
from concurrent import futures

import grpc

LARGE = 64 * 1024 * 1024
OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.default_authority", "grpc.example"),
]
DEADLINE = 60
cancelled = threading.Event()


def unary(request, context):
    told = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", told.get("x-asked", "")),))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-bytes-bin", b"\x00\xff")))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 100 %")
    return request


def wait(request, context):
    context.add_callback(cancelled.set)
    cancelled.wait(DEADLINE)
    return b""


def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def collect(requests, context):
    return b",".join(requests)


def echo(requests, context):
    yield from requests


def serve():
    kinds = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", kinds),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    return server


def held(what, is_so):
    print("held" if is_so else "DID NOT HOLD", what, flush=True)
    if not is_so:
        sys.exit(1)


def ask(channel):
    call = channel.unary_unary("/test.Echo/Unary")
    answer, told = call.with_call(b"hello", metadata=(("x-asked", "yes"),), timeout=DEADLINE)
    held("a unary call", answer == b"hello")
    held("initial metadata", dict(told.initial_metadata()).get("x-initial") == "yes")
    trailing = dict(told.trailing_metadata())
    held("trailers", (trailing.get("x-trailing"), trailing.get("x-bytes-bin")) == ("last", b"\x00\xff"))

    try:
        call(b"fail", timeout=DEADLINE)
        held("an error", False)
    except grpc.RpcError as error:
        is_so = (error.code(), error.details()) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "not today: 100 %",
        )
        held("an error with its words", is_so)

    numbers = list(channel.unary_stream("/test.Echo/Count")(b"1000", timeout=DEADLINE))
    held("a stream of answers", numbers == [b"%d" % number for number in range(1000)])
    parts = (b"%d" % number for number in range(1000))
    whole = channel.stream_unary("/test.Echo/Collect")(parts, timeout=DEADLINE)
    held("a stream of requests", whole.count(b",") == 999)

    turns = threading.Semaphore(1)

    def in_turns():
        # Each message waits for the answer to the one before it: nothing may be held back.
        for number in range(100):
            turns.acquire(timeout=DEADLINE)
            yield b"%d" % number

    answers = []
    for answer in channel.stream_stream("/test.Echo/Echo")(in_turns(), timeout=DEADLINE):
        answers.append(answer)
        turns.release()
    held("streams both ways, in turns", len(answers) == 100)

    try:
        channel.unary_unary("/test.Echo/Wait")(b"", timeout=0.5)
        held("a deadline", False)
    except grpc.RpcError as error:
        held("a deadline", error.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
    held("the server hears that the call ended", cancelled.wait(DEADLINE))

    large = bytes(LARGE)
    held("messages of 64 MiB", call(large, timeout=DEADLINE) == large)


def main():
    server = serve()
    with grpc.insecure_channel(sys.stdin.readline().strip(), options=OPTIONS) as channel:
        ask(channel)
    server.stop(None)


main()
