"""Builds the engines that are no Python package: the Java peer with its jars, and the peer of the `paimon` crate. Everything goes to target/."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OWN = ROOT / "target" / "interop"


class Failed(Exception):
    """A run cannot go on."""


def enter_venv() -> None:
    """Starts the program again with the Python that has pypaimon, unless it runs there already."""
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("pypaimon is not installed: `tests/run setup` makes .venv")
    if Path(sys.prefix).resolve() != python.parents[1].resolve():
        os.execv(python, [str(python), *sys.argv])


def command(what: str, argv: list[str], cwd: Path) -> None:
    """Runs a command; what it says is shown when it fails."""
    print(f"-- {what}: {' '.join(argv)}", file=sys.stderr, flush=True)
    started = time.monotonic()
    done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failed(f"{what}: exit code {done.returncode}\n{done.stdout[-6000:]}")
    print(f"   {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


JAVA_VERSIONS = {"2.0.0": "paimon-flink-2.0", "1.4.2": "paimon-bundle"}


def java(*flags: str, version: str = "2.0.0") -> list[str]:
    """How the Java peer is started, but for its arguments. Jars and classes are made when they are missing or old."""
    lib, classes = OWN / f"java-{version}" / "lib", OWN / f"java-{version}" / "classes"
    classes.mkdir(parents=True, exist_ok=True)
    if not _newer(lib / "complete", HERE / "java/pom.xml"):
        command(f"fetching Java Paimon {version}",
                ["mvn", "-q", "-B", "-f", str(HERE / "java/pom.xml"), f"-Dlib={lib}", f"-Dpaimon.artifact={JAVA_VERSIONS[version]}",
                 f"-Dpaimon.version={version}", "initialize"], ROOT)
        (lib / "complete").touch()
    if not _newer(classes / "Peer.class", HERE / "java/Peer.java"):
        compile_peer = ["javac", "-nowarn", "-encoding", "UTF-8", "-d", str(classes), "-cp", f"{lib}/*", str(HERE / "java/Peer.java")]
        command("compiling the Java peer", compile_peer, ROOT)
    return ["java", *flags, "-Duser.timezone=UTC", "-cp", f"{classes}:{lib}/*", "Peer"]


# What Spark needs opened of Java 17's modules.
OPENED = ("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util", "java.util.concurrent",
          "java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar")


def spark(*flags: str) -> list[str]:
    """How the Spark peer is started, but for its arguments."""
    return _sql_peer("spark", "SparkPeer", [], *flags)


def flink(*flags: str) -> list[str]:
    """How the Flink peer is started, but for its arguments. Its connector is the jar of the Java peer."""
    java()
    return _sql_peer("flink", "FlinkPeer", [OWN / "java-2.0.0/lib"], *flags)


def _sql_peer(engine: str, peer: str, libraries: list[Path], *flags: str) -> list[str]:
    lib, classes, sources = OWN / engine / "lib", OWN / engine / "classes", [HERE / "engines/SqlPeer.java", HERE / f"engines/{engine}/{peer}.java"]
    classes.mkdir(parents=True, exist_ok=True)
    if not _newer(lib / "complete", HERE / f"engines/{engine}/pom.xml"):
        command(f"fetching {engine}", ["mvn", "-q", "-B", "-f", str(HERE / f"engines/{engine}/pom.xml"), f"-Dlib={lib}", "initialize"], ROOT)
        (lib / "complete").touch()
    jars = ":".join(f"{folder}/*" for folder in (lib, *libraries))
    if not all(_newer(classes / f"{peer}.class", source) for source in sources):
        command(f"compiling the {engine} peer", ["javac", "-nowarn", "-encoding", "UTF-8", "-d", str(classes), "-cp", jars, *map(str, sources)], ROOT)
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
    return ["java", *flags, *opened, "-Duser.timezone=UTC", "-cp", f"{classes}:{jars}", peer]


def paimon_rust(*flags: str) -> Path:
    """The peer of the `paimon` crate."""
    target = OWN / "paimon-rust"
    build = ["cargo", "build", *flags, "--locked", "--manifest-path", str(HERE / "paimon-rust/Cargo.toml"), "--target-dir", str(target)]
    command("building the paimon crate's peer (minutes when cold)", build, HERE / "paimon-rust")
    return target / ("release" if "--release" in flags else "debug") / "paimon-peer"


def _newer(made: Path, source: Path) -> bool:
    return made.exists() and made.stat().st_mtime >= source.stat().st_mtime
