# A member of the core, with the command line beside it. Build it in the root of the clone:
#
#   docker build -f deploy/dockerfiles/node.Dockerfile -t REGISTRY/dovetail-node:TAG .
#
# CI has no registry and makes its images with deploy/image.sh from the same programs.
FROM docker.io/library/rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends clang libclang-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked --workspace --bin dovetaild --bin dovetail \
    && mkdir /data

FROM gcr.io/distroless/cc-debian12
COPY --from=build /src/target/release/dovetaild /src/target/release/dovetail /
COPY --from=build /data /data
# Root, since the Docker socket is root's; the stack file takes every capability away.
USER 0:0
ENTRYPOINT ["/dovetaild"]
