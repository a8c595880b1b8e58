# A proxy. Build it in the root of the clone:
#
#   docker build -f deploy/dockerfiles/proxy.Dockerfile -t REGISTRY/dovetail-proxy:TAG .
#
# CI has no registry and makes its images with deploy/image.sh from the same programs.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p dovetail-proxy --bin dovetail-proxy \
    && mkdir /data

FROM gcr.io/distroless/cc-debian12
COPY --from=build /src/target/release/dovetail-proxy /
# A fresh volume takes its owner from here.
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
ENTRYPOINT ["/dovetail-proxy"]
