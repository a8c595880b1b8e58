#!/usr/bin/env python3
"""WebSocket conformance: Autobahn's fuzzing client against an echo server, directly and through the
proxy. The proxy passes when both reports are equal, case by case, but for what the server alone
answers now in one way and now in another.

    autobahn.py [PROXY]     PROXY is the example `fixed` of dovetail-proxy; built when not given

What it needs, and what it says when that is missing (and then exits with 0, for `make test-long`):

* Python 2.7 as PYTHON2 (or python2.7 on the PATH), with Autobahn in AUTOBAHN_DIR:
      python2.7 -m pip install --target DIR autobahntestsuite
* the package `websockets` for this Python, or in WEBSOCKETS_DIR:
      python3 -m pip install --target DIR websockets

CASES chooses cases, such as "1.*,9.1.*"; all of them take some minutes. Everything listens on loopback,
on ports that were free at the start, and ends with this script.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ECHO = """
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""
WSTEST = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from autobahntestsuite.wstest import run
run()
"""
START_DEADLINE_S = 30
# How often a case that differs is asked of the server alone.
REPEATS = 10


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(0)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port} after {START_DEADLINE_S} s")


def python2():
    """Python 2.7 and a copy of nothing: Autobahn's own folder, completed."""
    program = os.environ.get("PYTHON2") or shutil.which("python2.7")
    folder = os.environ.get("AUTOBAHN_DIR")
    if not program:
        skip("there is no Python 2.7 (PYTHON2)")
    if not folder or not os.path.isdir(os.path.join(folder, "autobahntestsuite")):
        skip("there is no Autobahn test suite (AUTOBAHN_DIR)")
    # pip --target leaves the namespace package without its file.
    zope = os.path.join(folder, "zope")
    if os.path.isdir(zope):
        open(os.path.join(zope, "__init__.py"), "a", encoding="utf-8").close()
    return program, folder


def environment():
    extra = os.environ.get("WEBSOCKETS_DIR")
    env = dict(os.environ, PYTHONPATH=extra) if extra else dict(os.environ)
    probe = [sys.executable, "-c", "import websockets.asyncio.server"]
    if subprocess.run(probe, env=env, capture_output=True).returncode != 0:
        skip("there is no package `websockets` for this Python (WEBSOCKETS_DIR)")
    return env


def proxy():
    if len(sys.argv) > 1:
        return sys.argv[1]
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    build = ["cargo", "build", "--workspace", "--example", "fixed"]
    subprocess.run(build, cwd=root, check=True)
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(root, "target")
    return os.path.join(target, "debug", "examples", "fixed")


def outcome(case):
    """What both reports must agree on."""
    return case["behavior"], case["behaviorClose"], case["remoteCloseCode"]


def fuzz(program, autobahn, folder, ports, cases):
    """The reports of one run of Autobahn, by agent."""
    outdir = tempfile.mkdtemp(prefix="reports-", dir=folder)
    spec = {
        "outdir": outdir,
        "servers": [
            {"agent": agent, "url": f"ws://127.0.0.1:{port}"}
            for agent, port in zip(("direct", "proxy"), ports)
        ],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    spec_file = os.path.join(folder, "spec.json")
    with open(spec_file, "w", encoding="utf-8") as file:
        json.dump(spec, file)
    wstest = [program, "-c", WSTEST, autobahn, "-m", "fuzzingclient", "-s", spec_file]
    log = os.path.join(folder, "wstest.log")
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run(wstest, cwd=folder, stdout=file, stderr=file)
    if done.returncode != 0:
        with open(log, encoding="utf-8") as file:
            sys.exit(f"wstest ended with {done.returncode}:\n{file.read()[-2000:]}")
    with open(os.path.join(outdir, "index.json"), encoding="utf-8") as file:
        return json.load(file)


def main():
    program, autobahn = python2()
    env = environment()
    fixed = proxy()
    echo_port, proxy_port = free_port(), free_port()
    folder = tempfile.mkdtemp(prefix="dovetail-autobahn-")
    processes = []
    try:
        echo = [sys.executable, "-c", ECHO, str(echo_port)]
        through = [fixed, f"127.0.0.1:{proxy_port}", "127.0.0.1", f"127.0.0.1:{echo_port}"]
        for port, command in ((echo_port, echo), (proxy_port, through)):
            processes.append(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
            wait_for(port, processes[-1])
        started = time.monotonic()
        ports = (echo_port, proxy_port)
        cases = os.environ.get("CASES", "*").split(",")
        run = lambda cases: fuzz(program, autobahn, folder, ports, cases)
        reports = run(cases)
        direct, proxied = reports["direct"], reports["proxy"]
        differ = {case for case in direct if outcome(direct[case]) != outcome(proxied[case])}
        # Some cases are races of the echo server itself: its answer may come before it hangs
        # up or not. A difference counts if the server alone never shows the other outcome.
        for _ in range(REPEATS if differ else 0):
            again = run(sorted(differ))["direct"]
            differ = {case for case in differ if outcome(again[case]) != outcome(proxied[case])}
            if not differ:
                break
    finally:
        for process in processes:
            process.terminate()
            process.wait()
        if not os.environ.get("KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
    for agent, report in reports.items():
        counts = {}
        for case in report.values():
            counts[case["behavior"]] = counts.get(case["behavior"], 0) + 1
        print(f"{agent}: {len(report)} cases: {json.dumps(counts, sort_keys=True)}")
    for case in sorted(differ):
        print(f"case {case}: directly {outcome(direct[case])}, by the proxy {outcome(proxied[case])}")
    print(f"{len(differ)} of {len(direct)} cases differ, after {time.monotonic() - started:.0f} s")
    sys.exit(1 if differ or len(direct) != len(proxied) else 0)


if __name__ == "__main__":
    main()
