"""Drives a canary and a rollback with grpcio, and knows of Dovetail only what gRPC reflection tells.

Arguments: the folder of an operator's certificate, a member's HOST:PORT, a published host,
and the two services on it. Prints a line for each thing that held.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

folder, member, host, old, new = sys.argv[1:]


def pem(name):
    with open(f"{folder}/{name}.pem", "rb") as file:
        return file.read()


credentials = grpc.ssl_channel_credentials(pem("ca"), pem("key"), pem("cert"))
channel = grpc.secure_channel(member, credentials)
pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
admin = pool.FindServiceByName("dovetail.v1.Admin")


def call(name, **fields):
    method = admin.FindMethodByName(name)
    answer = message_factory.GetMessageClass(method.output_type)
    request = message_factory.GetMessageClass(method.input_type)(**fields)
    invoke = channel.unary_unary(
        f"/{admin.full_name}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    return invoke(request, timeout=20)


def refused(name, code, said, **fields):
    try:
        answer = call(name, **fields)
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        assert said in error.details(), error.details()
        print(f"held {name} is refused: {error.details()}")
        return
    raise AssertionError(f"{name} was not refused: {answer}")


def shares(of_old, of_new):
    route = {"host": host, "path": "/"}
    given = [{"service": old, "weight": of_old}, {"service": new, "weight": of_new}]
    return {"route": route, "shares": given}


def in_force():
    routes = call("Routes").routes
    route = next(route for route in routes if route.host == host)
    return {service.name: service.weight for service in route.services}


assert in_force() == {old: 5_000, new: 5_000}, in_force()
dry = call("SetCanary", request_id="py-0", dry_run=True, command=shares(9_000, 1_000))
assert dry.dry_run and len(dry.routes) == 1, dry
assert in_force() == {old: 5_000, new: 5_000}, in_force()
print("held a dry run changes nothing")
done = call("SetCanary", request_id="py-1", command=shares(9_000, 1_000))
assert done.applied == "changed" and not done.first_answer, done
assert in_force() == {old: 9_000, new: 1_000}, in_force()
print("held the shares are in force")
again = call("SetCanary", request_id="py-1", command=shares(9_000, 1_000))
assert again.first_answer and again.index == done.index, again
print("held a repetition gets the first answer")
canary = call("Canaries").canaries[0]
assert canary.actor == "dovetail://operator/operator" and canary.index == done.index, canary
print("held the canary names its author")
precondition = grpc.StatusCode.FAILED_PRECONDITION
refused("SetCanary", precondition, "sum to 10000", request_id="py-2", command=shares(1, 2))
refused(
    "ClearCanary",
    precondition,
    "was used for another command",
    request_id="py-1",
    command={"route": {"host": host}},
)
refused("SetCanary", grpc.StatusCode.INVALID_ARGUMENT, "command", request_id="py-3")
call("PromoteCanary", request_id="py-4", command={"route": {"host": host}, "service": new})
assert in_force() == {old: 0, new: 10_000}, in_force()
call("ClearCanary", request_id="py-5", command={"route": {"host": host}})
assert in_force() == {old: 5_000, new: 5_000}, in_force()
print("held promoted, and cleared again")


def rolled_back():
    route = next(route for route in call("Routes").routes if route.host == host)
    return route.HasField("rollback")


before = call("Status").index
call("SetCanary", request_id="py-6", command=shares(9_000, 1_000))
refused(
    "Rollback",
    precondition,
    "future",
    request_id="py-7",
    command={"to": before + 1_000_000, "host": host},
)
call("Rollback", request_id="py-8", command={"to": before, "host": host})
assert in_force() == {old: 5_000, new: 5_000} and rolled_back(), call("Routes")
print("held rolled back to the shares of before")
refused("SetCanary", precondition, "release first", request_id="py-9", command=shares(1_000, 9_000))
call("Release", request_id="py-10", command={})
assert not rolled_back(), call("Routes")
print("held released")
