"""Run a module as on Windows, as far as Linux can simulate that.

Usage: ``python tests/support/simulate_windows.py MODULE ARGUMENTS``. With ``import`` as MODULE,
every module of the project is imported instead.

The interpreter loses the modules, functions and signals that Windows lacks. A file cannot be
removed, renamed or replaced while it is open, a folder cannot be opened, and file names cannot hold
characters that Windows refuses. The large libraries are imported first, because on Linux they use
what Linux has.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import multiprocessing
import os
import pkgutil
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

LIBRARIES = (
    "torch",
    "torchvision",
    "pandas",
    "scipy.special",
    "scipy.stats",
    "sklearn.datasets",
    "skimage.data",
    "matplotlib.figure",
    "filelock",
    "pebble",
    "rich.live",
    "multiprocessing.forkserver",
    "multiprocessing.resource_tracker",
    "subprocess",
    "shutil",
    "pathlib",
    "socket",
    "urllib.request",
)
MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt", "nis")
OF_OS = (
    "fork",
    "forkpty",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getpgid",
    "setsid",
    "killpg",
    "uname",
    "sched_getaffinity",
    "sched_setaffinity",
    "pidfd_open",
    "pathconf",
    "sysconf",
    "mkfifo",
    "mknod",
    "nice",
    "getloadavg",
    "chown",
    "lchown",
    "fchmod",
    "chroot",
    "posix_spawn",
    "posix_fadvise",
    "posix_fallocate",
    "O_DIRECTORY",
    "O_SYNC",
    "O_DSYNC",
)
OF_SIGNAL = (
    "SIGKILL",
    "SIGHUP",
    "SIGUSR1",
    "SIGUSR2",
    "SIGALRM",
    "SIGCHLD",
    "SIGSTOP",
    "SIGCONT",
    "SIGQUIT",
    "SIGPIPE",
    "pthread_sigmask",
    "pthread_kill",
    "sigwait",
    "setitimer",
    "alarm",
    "pause",
    "siginterrupt",
)
FORBIDDEN = set('<>:"|?*')


def narrow() -> None:
    """Take away what Windows lacks."""
    for name in LIBRARIES:
        importlib.import_module(name)
    tempfile.gettempdir()
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in OF_OS:
        if hasattr(os, name):
            delattr(os, name)
    for name in OF_SIGNAL:
        if hasattr(signal, name):
            delattr(signal, name)
    multiprocessing.get_all_start_methods = lambda: ["spawn"]  # type: ignore[method-assign]
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    os.kill = _never  # type: ignore[assignment]
    for name in ("remove", "unlink", "rename", "replace"):
        setattr(os, name, _unless_open(getattr(os, name)))
    for module, name in ((os, "mkdir"), (io, "open"), (builtins, "open")):
        setattr(module, name, _with_good_names(getattr(module, name)))
    os.open = _files_only(_with_good_names(os.open))  # type: ignore[assignment]


def _never(*arguments: object) -> None:
    raise AssertionError(f"on Windows os.kill{arguments} would end the process or send it Ctrl-C")


def _unless_open(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*paths: Any, **more: Any) -> Any:
        if _is_for_filelock():
            return function(*paths, **more)
        names = {os.path.realpath(path) for path in paths if not isinstance(path, int)}
        for number in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue
            if target in names:
                raise PermissionError(errno.EACCES, "the file is open in this process", target)
        return function(*paths, **more)

    return guarded


def _is_for_filelock() -> bool:
    """Return True if filelock is the caller; it runs its code for Linux here."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("filelock."):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _with_good_names(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(path: Any, *arguments: Any, **more: Any) -> Any:
        if not isinstance(path, int):
            whole = Path(os.fsdecode(path))
            for part in whole.relative_to(whole.anchor).parts:
                if FORBIDDEN & set(part) or part not in ("..", part.rstrip(". ")):
                    raise OSError(errno.EINVAL, "Windows takes no such name", part)
        return function(path, *arguments, **more)

    return guarded


def _files_only(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(path: Any, flags: int, *arguments: Any, **more: Any) -> Any:
        if os.path.isdir(path) and not _is_for_filelock():
            raise PermissionError(errno.EACCES, "Windows opens no folders", path)
        return function(path, flags, *arguments, **more)

    return guarded


def import_everything() -> None:
    """Import every module of the project, plug-ins excluded."""
    count = 0
    for package in ("benchmark", "algorithms", "datasets"):
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            importlib.import_module(module.name)
            count += 1
    print(f"{count} modules imported")


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    module = sys.argv[1]
    del sys.argv[0]
    narrow()
    if module == "import":
        import_everything()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
