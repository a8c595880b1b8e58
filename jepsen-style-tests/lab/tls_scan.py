#!/usr/bin/env python3
"""TLS as scanners see it: testssl.sh and sslyze against a proxy on loopback. Passes when neither finds
anything above LOW but for what EXPLAINED below names, with the reason.

    tls_scan.py [PROXY]     PROXY is the example `fixed` of dovetail-proxy; built when not given

What it needs; a scanner that is missing is named and left out, and without any the script exits with 0:

* testssl.sh as TESTSSL, or on the PATH (Debian's package `testssl.sh`)
* the package `sslyze` for this Python, or in SSLYZE_DIR:
      python3 -m pip install --target DIR sslyze
* openssl, for the test certificate: an authority that nobody knows, and a server's certificate by it

The proxy hides its own headers (`HideInfoHeaders`), and the application sends the headers that are an
application's to send, so that what is found is the proxy's. Everything listens on loopback, on ports
that were free at the start, and ends with this script. KEEP leaves the reports where they are.
"""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

START_DEADLINE_S = 30
SCAN_DEADLINE_S = 900
HOST = "localhost"
# What an application says to be safe in browsers.
APPLICATION_HEADERS = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'self'",
    "Referrer-Policy": "no-referrer",
}
ABOVE_LOW = ("MEDIUM", "HIGH", "CRITICAL", "FATAL", "WARN")
SSLYZE_SCANS = (
    "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3",
    "heartbleed", "openssl_ccs", "robot", "compression", "reneg", "early_data", "ems",
)
# Findings above LOW that are not the proxy's, by the scanner's own name for them.
EXPLAINED = {
    "cert_chain_of_trust": "the test certificate's authority is known to nobody",
    "cert_revocation": "the test certificate's authority publishes no revocations",
    "secure_renego": "testssl.sh 3.0 cannot ask with OpenSSL 3, which it warns of; sslyze asks the same below",
    "overall_grade": "a certificate that is not trusted is graded T whatever else is so",
}


class Application(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"hello\n"
        self.send_response_only(200)
        for name, value in APPLICATION_HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


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


def proxy():
    if len(sys.argv) > 1:
        return sys.argv[1]
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    build = ["cargo", "build", "--workspace", "--example", "fixed"]
    subprocess.run(build, cwd=root, check=True)
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(root, "target")
    return os.path.join(target, "debug", "examples", "fixed")


def certificate(folder):
    """Chain and key in `fixed.pem`, as the proxy takes them."""
    run = lambda *words: subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    usage = "basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign,cRLSign"
    root = ["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "90", "-subj", "/CN=Test authority"]
    run("req", *curve, *root, "-addext", usage[1])
    run("req", *curve, "-keyout", "key.pem", "-out", "csr.pem", "-subj", f"/CN={HOST}")
    with open(os.path.join(folder, "ext"), "w", encoding="utf-8") as file:
        file.write(f"subjectAltName=DNS:{HOST}\nbasicConstraints=critical,CA:false\n")
        file.write("keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "90", "-extfile", "ext"]
    run("x509", "-req", "-in", "csr.pem", "-out", "cert.pem", *sign)
    secrets = os.path.join(folder, "secrets")
    os.mkdir(secrets)
    with open(os.path.join(secrets, "fixed.pem"), "w", encoding="utf-8") as out:
        for name in ("cert.pem", "ca.pem", "key.pem"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                out.write(file.read())
    return secrets


def testssl(folder, port):
    """Findings as (name, severity, text); `None` without testssl.sh."""
    program = os.environ.get("TESTSSL") or shutil.which("testssl.sh") or shutil.which("testssl")
    if not program:
        print("left out: there is no testssl.sh (TESTSSL)")
        return None
    report = os.path.join(folder, "testssl.json")
    words = ["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "min", "--jsonfile", report]
    with open(os.path.join(folder, "testssl.log"), "w", encoding="utf-8") as log:
        command = [program, *words, "--ip", "127.0.0.1", f"{HOST}:{port}"]
        subprocess.run(command, stdout=log, stderr=log, timeout=SCAN_DEADLINE_S, stdin=subprocess.DEVNULL)
    with open(report, encoding="utf-8") as file:
        found = json.load(file)
    if not any(finding["id"] == "HTTP_status_code" for finding in found):
        sys.exit(f"testssl.sh did not reach the application; see {folder} with KEEP=1")
    return [(finding["id"], finding["severity"], finding["finding"]) for finding in found]


def sslyze(folder, port):
    """What sslyze says against the proxy, as findings; `None` without it."""
    extra = os.environ.get("SSLYZE_DIR")
    env = dict(os.environ, PYTHONPATH=extra) if extra else dict(os.environ)
    if subprocess.run([sys.executable, "-c", "import sslyze"], env=env, capture_output=True).returncode:
        print("left out: there is no package `sslyze` for this Python (SSLYZE_DIR)")
        return None
    report = os.path.join(folder, "sslyze.json")
    # Given by name, since what is not asked for is not scanned: early data is left out by default.
    scans = [f"--{scan}" for scan in SSLYZE_SCANS]
    command = [sys.executable, "-m", "sslyze", *scans, f"--json_out={report}", f"{HOST}:{port}"]
    with open(os.path.join(folder, "sslyze.log"), "w", encoding="utf-8") as log:
        subprocess.run(command, env=env, stdout=log, stderr=log, timeout=SCAN_DEADLINE_S)
    with open(report, encoding="utf-8") as file:
        scanned = json.load(file)["server_scan_results"][0]
    if scanned["scan_status"] != "COMPLETED":
        sys.exit(f"sslyze did not scan: {scanned['scan_status']}; see {folder} with KEEP=1")
    scans = scanned["scan_result"]
    findings = []

    def hold(name, fact, of):
        """One that could not be asked is a finding too."""
        scan = scans[name]
        good = scan["status"] == "COMPLETED" and of(scan["result"])
        findings.append((f"{name}: {fact}", "OK" if good else "HIGH", scan["status"]))

    for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        hold(f"{version}_cipher_suites", "none is taken", lambda r: not r["accepted_cipher_suites"])
    forward = lambda suite: suite["cipher_suite"]["name"].startswith(("TLS_ECDHE_", "TLS_AES_", "TLS_CHACHA20_"))
    for version in ("tls_1_2", "tls_1_3"):
        strong = lambda r: r["accepted_cipher_suites"] and all(map(forward, r["accepted_cipher_suites"]))
        hold(f"{version}_cipher_suites", "all have forward secrecy", strong)
    hold("heartbleed", "not vulnerable", lambda r: not r["is_vulnerable_to_heartbleed"])
    hold("openssl_ccs_injection", "not vulnerable", lambda r: not r["is_vulnerable_to_ccs_injection"])
    hold("robot", "not vulnerable", lambda r: r["robot_result"].startswith("NOT_VULNERABLE"))
    hold("tls_compression", "none", lambda r: not r["supports_compression"])
    safe = lambda r: not r["is_vulnerable_to_client_renegotiation_dos"]
    hold("session_renegotiation", "no renegotiation by clients", safe)
    hold("tls_1_3_early_data", "none", lambda r: not r["supports_early_data"])
    hold("tls_extended_master_secret", "supported", lambda r: r["supports_ems_extension"])
    return findings


def main():
    fixed = proxy()
    folder = tempfile.mkdtemp(prefix="dovetail-tls-scan-")
    application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    process, reports = None, {}
    try:
        ports = free_port(), free_port()
        env = dict(os.environ, HTTPS=f"127.0.0.1:{ports[1]}", SECRETS_DIR=certificate(folder), HIDE_INFO_HEADERS="1")
        upstream = f"127.0.0.1:{application.server_address[1]}"
        command = [fixed, f"127.0.0.1:{ports[0]}", HOST, upstream]
        process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        wait_for(ports[1], process)
        for scanner in (testssl, sslyze):
            started = time.monotonic()
            findings = scanner(folder, ports[1])
            if findings is not None:
                reports[scanner.__name__] = findings, time.monotonic() - started
    finally:
        application.shutdown()
        if process:
            process.terminate()
            process.wait()
        if os.environ.get("KEEP"):
            print(f"the reports are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    unexplained = 0
    for scanner, (findings, took) in reports.items():
        counts = {}
        for name, severity, text in findings:
            counts[severity] = counts.get(severity, 0) + 1
            if severity in ABOVE_LOW:
                reason = EXPLAINED.get(name.split(" ")[0])
                unexplained += reason is None
                print(f"{scanner}: {severity} {name}: {text} ({reason or 'NOT EXPLAINED'})")
        print(f"{scanner}: {len(findings)} findings: {json.dumps(counts, sort_keys=True)}, after {took:.0f} s")
    if not reports:
        print("skipped: no scanner is installed")
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
