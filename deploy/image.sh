#!/usr/bin/env bash
# Makes the images dovetail-node, dovetail-proxy and dovetail-app, and puts them on engines without a registry.
#
#   deploy/image.sh [ENGINE]...
#
# ENGINE is what DOCKER_HOST may be: ssh://root@manager-1, tcp://…, unix:///…. Without one, the engine that
# `docker` talks to. Each image holds one of our programs, the libraries that it is linked with, and nothing
# else: no shell, no package. The command line `dovetail` is left in deploy/bin.
#
#   DOVETAIL_BIN_DIR   take the programs from here instead of building them
#   DOVETAIL_TAG       the images' tag (dev)
#
# Who has a registry builds dockerfiles/*.Dockerfile instead.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tag=${DOVETAIL_TAG:-dev}

die() { echo "image.sh: $*" >&2; exit 1; }
for tool in docker ldd tar; do
  command -v "$tool" >/dev/null || die "needs '$tool', which is not installed"
done

if [[ -n ${DOVETAIL_BIN_DIR:-} ]]; then
  bin=$DOVETAIL_BIN_DIR
else
  echo "image.sh: building; the first time takes 10 to 15 minutes (RocksDB)"
  target=${CARGO_TARGET_DIR:-$here/../target}
  (cd "$here/.." && CARGO_TARGET_DIR=$target cargo build --release --locked --workspace --bins)
  bin=$target/release
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Puts one program with its libraries into a root file system.
place() {
  local program=$1 rootfs=$2 library libraries
  [[ -x $bin/$program ]] || die "no program '$program' in $bin"
  mkdir -p "$rootfs"
  cp "$bin/$program" "$rootfs/$program"
  strip --strip-debug "$rootfs/$program" 2>/dev/null || true
  # ldd fails for a program that is linked statically: that one needs nothing.
  libraries=$(ldd "$bin/$program" 2>/dev/null) || return 0
  [[ $libraries != *"not found"* ]] || die "$program: ${libraries//$'\n'/;}"
  for library in $(grep -o '/[^ ]*' <<<"$libraries"); do
    mkdir -p "$rootfs$(dirname "$library")"
    cp -L "$library" "$rootfs$library"
  done
}

# An image from a root file system. /data is the user's, so that a fresh volume mounted there is, too.
image() {
  local name=$1 user=$2 program=$3 rootfs=$work/$1 engine
  mkdir -p "$rootfs/data"
  tar --numeric-owner --owner=0 --group=0 --exclude=./data -C "$rootfs" -cf "$work/$name.tar" .
  tar --numeric-owner --owner="$user" --group="$user" -C "$rootfs" -rf "$work/$name.tar" ./data
  for engine in "${engines[@]}"; do
    echo "image.sh: $name:$tag on ${engine:-this engine}"
    docker ${engine:+-H "$engine"} import --change "ENTRYPOINT [\"/$program\"]" --change "USER $user:$user" \
      "$work/$name.tar" "$name:$tag" >/dev/null
  done
}

engines=("$@")
((${#engines[@]})) || engines=("")

# The core's image has the command line too: `docker exec … /dovetail … status` works on a manager.
place dovetaild "$work/dovetail-node"
place dovetail "$work/dovetail-node"
place dovetail-proxy "$work/dovetail-proxy"
place dovetail-upstream "$work/dovetail-app"
image dovetail-node 0 dovetaild
image dovetail-proxy 65532 dovetail-proxy
image dovetail-app 65532 dovetail-upstream
mkdir -p "$here/bin"
install -m 0755 "$bin/dovetail" "$here/bin/dovetail"
