# Tries to get out of the sandbox in ways that need no weakness, and reports which of them were not refused.
import ctypes, json, os, socket, sys

libc = ctypes.CDLL(None, use_errno=True)


def connects():
    socket.create_connection(("127.0.0.1", 1), 1)


def reaches_out():
    try:
        connects()
    except ConnectionRefusedError:
        return  # So it has been asked.


def forks():
    if os.fork() == 0:
        os._exit(0)


def system_call(number, *args):
    def call():
        if libc.syscall(number, *args) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    return call


def sends_datagram():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]
    try:
        pair.sendto(b"out", "/dev/log")
    except (ConnectionRefusedError, FileNotFoundError):
        # Looked for: among its own files, or among the machine's?
        os.stat("/etc/passwd")


def touches():
    # Both times as they are: the call does nothing to a file that it finds.
    same = (ctypes.c_long * 4)(0, (1 << 30) - 2, 0, (1 << 30) - 2)
    if libc.utimensat(-100, b"/etc/passwd", same, 0) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def has_environment():
    names = set(os.environ) - {"LC_CTYPE"}
    if not names:
        raise OSError("none")


def has_files():
    open_files = []
    for number in range(3, 64):
        try:
            os.fstat(number)
            open_files.append(number)
        except OSError:
            pass
    if not open_files:
        raise OSError("none")


attempts = {
    "a connection": reaches_out,
    "a socket": lambda: socket.socket(),
    "a process": forks,
    "the password file": lambda: open("/etc/shadow").read(),
    "the users' file": lambda: open("/etc/passwd").read(),
    "its parent's environment": lambda: open(f"/proc/{os.getppid()}/environ").read(),
    "home directories": lambda: os.listdir("/home"),
    "a file elsewhere": lambda: open("/tmp/sluice-eval-escaped", "w"),
    "whether a file exists": lambda: os.stat("/etc/passwd"),
    "the times of a file": touches,
    "a datagram to an address": sends_datagram,
    "a shell": lambda: os.execv("/bin/sh", ["sh", "-c", "exit 7"]),
    "a signal to its parent": lambda: os.kill(os.getppid() or -1, 0),
    "a signal to another thread": system_call(234 if os.uname().machine == "x86_64" else 131, os.getppid() or 2, os.getppid() or 2, 0),
    "tracing": system_call(101 if os.uname().machine == "x86_64" else 117, 16, 1, 0, 0),
    "a namespace of its own": system_call(272 if os.uname().machine == "x86_64" else 97, 0x10000000),
    "an environment": has_environment,
    "inherited files": has_files,
}
escaped = []
for name, attempt in attempts.items():
    try:
        attempt()
        escaped.append(name)
    except Exception:
        pass
print(json.dumps({"attempts": len(attempts), "escaped": escaped}), flush=True)
