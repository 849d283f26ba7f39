"""Runs `ovlfuse run` at a terminal of its own: keys, job control, window size.

Arguments: the program, the tree.
"""

import fcntl
import glob
import os
import pty
import struct
import sys
import termios

PROGRAM, TREE = sys.argv[1:]


def processes():
    """Name, state and session of every process."""
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # It has ended.
        fields = rest.split()
        yield name, fields[0], int(fields[3])


class Terminal:
    """A command in a new session with a new terminal."""

    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1="$ ", TERM="dumb", PROGRAM=PROGRAM, TREE=TREE)
            os.execvp(command[0], command)
        self.seen = b""

    def expect(self, text):
        """Waits until text is shown, behind what was waited for before."""
        while text.encode() not in self.seen:
            try:
                new = os.read(self.fd, 4096)
            except OSError:
                new = b""
            if not new:
                raise SystemExit(f"{text!r} was not shown, but {self.seen!r}")
            self.seen += new
        self.seen = self.seen.split(text.encode(), 1)[1]

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_until_stopped(self, name):
        """Waits until the process called name in this session is stopped. Its read(2) may have
        taken what is typed before."""
        states = []
        while states != ["T"]:
            states = [state for (comm, state, session) in processes() if (comm, session) == (name, self.pid)]

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ends(self, code):
        """Waits for the end, which must have this exit code."""
        while True:
            try:
                if not os.read(self.fd, 4096):
                    break
            except OSError:
                break
        got = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if got != code:
            raise SystemExit(f"exit code {got}, not {code}")


def run(*command):
    return Terminal(PROGRAM, "run", TREE, "--", *command)


# Ctrl-C ends the command, which had a terminal.
terminal = run("sh", "-c", "tty; echo ready; exec sleep 1000")
terminal.expect("/dev/console")
terminal.expect("ready")
terminal.type("\x03")
terminal.ends(130)

# The command may answer it in its own way.
terminal = run("bash", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done")
terminal.expect("ready")
terminal.type("\x03")
terminal.ends(9)

# The window's size.
terminal = run("bash", "-c", "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done")
terminal.expect("ready")
terminal.resize(33, 77)
terminal.expect("33 77")
terminal.ends(0)

# Ctrl-Z and fg in the shell that started it. Line editing could lose what is typed at once.
terminal = Terminal("bash", "--norc", "--noediting", "-i")
terminal.expect("$ ")
terminal.type('"$PROGRAM" run "$TREE" -- sh -c "echo rea\'\'dy; read x; echo got \\$x"\n')
terminal.expect("ready")
terminal.type("\x1a")
terminal.expect("Stopped")
terminal.expect("\n$ ")
terminal.wait_until_stopped("sh")
terminal.type("fg\n")
terminal.expect("echo got")
terminal.type("it\n")
terminal.expect("got it")
terminal.expect("$ ")
terminal.type("exit 4\n")
terminal.ends(4)

# A shell with job control inside has jobs of its own, and ends with its terminal.
terminal = run("bash", "--norc", "--noediting", "-i")
terminal.expect("# ")
terminal.type("sh -c 'echo rea\"\"dy; exec sleep 1000'\n")
terminal.expect("ready")
terminal.type("\x1a")
terminal.expect("Stopped")
os.close(terminal.fd)
os.waitpid(terminal.pid, 0)

# Whoever started it has the terminal again afterwards.
terminal = Terminal("sh", "-c", '"$PROGRAM" run "$TREE" -- bash --norc --noediting -i; read x; echo "back: $x"')
terminal.expect("# ")
terminal.type("exit\n")
terminal.expect("exit\r\nexit\r\n")
terminal.type("again\n")
terminal.expect("back: again")
terminal.ends(0)
