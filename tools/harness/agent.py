# SPDX-License-Identifier: GPL-2.0-only
"""The guest's end of the line: runs commands for the host. Started by ``init.sh`` as process 1.

Messages are JSON, one a line, both ways over a virtio-serial port. Bytes travel as
latin-1 text, so that nothing is lost. The host asks::

    {"id": 1, "do": "run", "argv": [...], "env": {...}, "cwd": "/", "stdin": "..."}
    {"id": 1, "do": "signal", "number": 15}
    {"id": 2, "do": "write", "path": "...", "data": "...", "mode": 420}
    {"id": 3, "do": "read", "path": "..."}
    {"id": 4, "do": "disks"}
    {"id": 5, "do": "reboot"}

and every request but ``signal`` and ``reboot`` is answered by exactly one message with
``exit`` (a status, 128 + n for signal n) and, for failures of the agent's own, ``error``.
Before it, ``run`` sends any number of ``{"id": 1, "fd": 1, "data": "..."}``. The first
message of all is ``{"id": 0, "exit": 0}``. A port that closes means that the host is gone:
the guest powers off.

Only what starts quickly is imported: reading a module of Python's over 9p is slow.
"""

from __future__ import annotations

import glob
import json
import os
import select
import signal
import sys
from typing import Any

CHUNK = 65536
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
RB_AUTOBOOT = 0x01234567
RB_POWER_OFF = 0x4321FEDC

Message = dict[str, Any]


def restart(how: int) -> None:
    """Write everything out and end the guest: -no-reboot makes QEMU end either way."""
    import ctypes

    os.sync()
    ctypes.CDLL(None).reboot(how)


def read_text(path: str) -> str:
    """Return a small file's text without the space around it, or nothing if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1").strip()
    except OSError:
        return ""


def disks() -> dict[str, str]:
    """Return the device of every disk that has a serial number, by that number."""
    found = {}
    for block in glob.glob("/sys/block/*"):
        if read_text(f"{block}/hidden") == "1":
            continue
        # virtio and NVMe show it as text, SCSI as page 0x80 with a header of four bytes.
        serial = read_text(f"{block}/serial") or read_text(f"{block}/device/serial")
        if not serial and os.path.exists(f"{block}/device/vpd_pg80"):
            with open(f"{block}/device/vpd_pg80", "rb") as file:
                serial = file.read()[4:].decode("latin-1").strip()
        if serial:
            found[serial] = "/dev/" + os.path.basename(block)
    return found


class Child:
    """A command that runs: its pipes, and a descriptor that becomes readable when it ends."""

    def __init__(self, request: Message) -> None:
        """Start the command that a request describes."""
        self.id: int = request["id"]
        environment = {**ENVIRONMENT, **request.get("env", {})}
        stdin = os.memfd_create("stdin")
        os.write(stdin, request.get("stdin", "").encode("latin-1"))
        os.lseek(stdin, 0, os.SEEK_SET)
        self.pipes: dict[int, int] = {}
        ends = []
        for number in (1, 2):
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            self.pipes[ours] = number
            ends.append(theirs)
        self.pid = os.fork()
        if self.pid == 0:
            self._become(request["argv"], environment, request.get("cwd", "/"), (stdin, *ends))
        for descriptor in (stdin, *ends):
            os.close(descriptor)
        self.ended = os.pidfd_open(self.pid)

    @staticmethod
    def _become(
        argv: list[str], environment: dict[str, str], cwd: str, descriptors: tuple[int, ...]
    ) -> None:
        try:
            os.setsid()
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            for number in (signal.SIGPIPE, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.chdir(cwd)
            os.execvpe(argv[0], argv, environment)
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def status(self) -> int:
        """Reap the child and return its exit status, 128 + n for signal n."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


class Agent:
    """Serves one port until it closes."""

    def __init__(self, port: int) -> None:
        """Take over an open port."""
        self.port = port
        self.poll = select.poll()
        self.poll.register(port, select.POLLIN)
        self.children: dict[int, Child] = {}
        self.owners: dict[int, Child] = {}
        self.buffer = b""

    def send(self, message: Message) -> None:
        """Send one message to the host."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[os.write(self.port, data) :]

    def serve(self) -> None:
        """Answer requests until the host is gone."""
        self.send({"id": 0, "exit": 0})
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor == self.port:
                    data = os.read(self.port, CHUNK)
                    if not data:
                        return
                    *lines, self.buffer = (self.buffer + data).split(b"\n")
                    for line in lines:
                        self.handle(json.loads(line))
                elif descriptor in self.owners:
                    child = self.owners[descriptor]
                    if descriptor == child.ended:
                        self.finish(child)
                    else:
                        self.forward(child, descriptor)

    def handle(self, request: Message) -> None:
        """Do what one request says."""
        try:
            getattr(self, "do_" + request["do"])(request)
        except OSError as error:
            self.send({"id": request["id"], "exit": 1, "error": str(error)})

    def do_run(self, request: Message) -> None:
        """Start a command."""
        child = Child(request)
        self.children[child.id] = child
        for descriptor in (*child.pipes, child.ended):
            self.owners[descriptor] = child
            self.poll.register(descriptor, select.POLLIN)

    def do_signal(self, request: Message) -> None:
        """Send a signal to a command and whatever it has started."""
        if child := self.children.get(request["id"]):
            os.killpg(child.pid, request["number"])

    def do_write(self, request: Message) -> None:
        """Write a file."""
        with open(request["path"], "wb") as file:
            file.write(request["data"].encode("latin-1"))
            os.fchmod(file.fileno(), request["mode"])
        self.send({"id": request["id"], "exit": 0})

    def do_read(self, request: Message) -> None:
        """Read a file."""
        with open(request["path"], "rb") as file:
            self.send({"id": request["id"], "exit": 0, "data": file.read().decode("latin-1")})

    def do_disks(self, request: Message) -> None:
        """Tell which device has which serial number."""
        self.send({"id": request["id"], "exit": 0, "disks": disks()})

    def do_reboot(self, _request: Message) -> None:
        """Shut the kernel down in order."""
        restart(RB_AUTOBOOT)

    def forward(self, child: Child, descriptor: int) -> None:
        """Send what a command has printed; forget the pipe at its end."""
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        if data:
            self.send(
                {"id": child.id, "fd": child.pipes[descriptor], "data": data.decode("latin-1")}
            )
        else:
            del child.pipes[descriptor]
            self.forget(descriptor)

    def finish(self, child: Child) -> None:
        """Send the rest of a command's output, then its status.

        A daemon it has left behind may hold the pipes open for ever: only what is in
        them now belongs to the command.
        """
        for descriptor in list(child.pipes):
            while descriptor in child.pipes and select.select([descriptor], [], [], 0)[0]:
                self.forward(child, descriptor)
        for descriptor in (*child.pipes, child.ended):
            self.forget(descriptor)
        del self.children[child.id]
        self.send({"id": child.id, "exit": child.status()})

    def forget(self, descriptor: int) -> None:
        """Close a descriptor and stop watching it."""
        self.poll.unregister(descriptor)
        del self.owners[descriptor]
        os.close(descriptor)


def parameter(name: str) -> str:
    """Return the value of a word of the kernel's command line, or nothing."""
    words = (word.partition("=") for word in read_text("/proc/cmdline").split())
    return next((value for key, _, value in words if key == name), "")


def serve() -> None:
    """Find the port and serve it."""
    names = glob.glob("/sys/class/virtio-ports/*/name")
    port = next(
        os.path.basename(os.path.dirname(name)) for name in names if read_text(name) == "agent"
    )
    Agent(os.open(f"/dev/{port}", os.O_RDWR | os.O_CLOEXEC)).serve()


def interact(script: str) -> None:
    """Run a script of the host's, then a shell on the console, for a person."""
    os.setsid()
    terminal = os.open("/dev/ttyS0", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(terminal, number)
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 1)
    os.chdir("/root")
    os.execve("/bin/bash", ["bash", script], {**ENVIRONMENT, "TERM": "vt100"})


def main() -> None:
    """Be process 1: start the real work, reap orphans, and power off when it is done."""
    worker = os.fork()
    if worker == 0:
        script = bytes.fromhex(parameter("harness.script")).decode()
        if script:
            interact(script)
        serve()
        sys.exit(0)
    while True:
        pid, _ = os.wait()
        if pid == worker:
            restart(RB_POWER_OFF)


if __name__ == "__main__":
    if sys.argv[1:] == ["disks"]:
        for serial, device in sorted(disks().items()):
            print(f"{serial:<12} {device}")
    else:
        main()
