"""Makes the kernel refuse to exchange two names, as NFS and Lustre do, for the calling process."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

#: Of each machine: the audit architecture and the number of the system call renameat2.
_MACHINES = {"x86_64": (0xC000003E, 316), "aarch64": (0xC00000B7, 276)}
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_RENAME_EXCHANGE, _HERE = 2, -100

POSSIBLE = sys.platform == "linux" and platform.machine() in _MACHINES


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def refuse_exchange() -> None:
    """Let renameat2 fail with EINVAL from now on, by a seccomp filter.

    Raises:
        OSError: the kernel does not let this process filter its own system calls.
    """
    architecture, renameat2 = _MACHINES[platform.machine()]
    instructions = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, 3, architecture),
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 1, renameat2),
        (_RETURN, 0, 0, _ERRNO | errno.EINVAL),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *line) for line in instructions)
    )
    program = _Program(len(instructions), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SECCOMP, _FILTER, ctypes.byref(program)),
    ):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def exchange(first: str, second: str) -> bool:
    """Exchange two names, with glibc's own function; False if the kernel refuses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    done: int = libc.renameat2(_HERE, names[0], _HERE, names[1], _RENAME_EXCHANGE)
    return done == 0
