"""Where a device is: `ssh://user@host[:port]`, and what of it is this user's own business.

Keys, jump hosts and known hosts are ssh's matter: ~/.ssh/config holds for `--device` as it does for `ssh`. Two things
may be set in the environment, because they belong to a machine and not to a project:

- EDGEPRUNE_SSH_CONFIG: a file that ssh takes in place of ~/.ssh/config (its -F), such as one that CI writes;
- EDGEPRUNE_DEVICE_PYTHON: the Python on the device that has ONNX Runtime or LiteRT, such as one in a virtual
  environment; python3 otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import InputError

SCHEME = "ssh://"
CONFIG_VARIABLE = "EDGEPRUNE_SSH_CONFIG"
PYTHON_VARIABLE = "EDGEPRUNE_DEVICE_PYTHON"
HOW = "write ssh://user@host or ssh://user@host:port"

# Names that no shell and no option parser reads as anything else: neither may begin with a '-'.
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]"
_ADDRESS = re.compile(rf"ssh://(?P<user>{_USER})@(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?/?")
_PYTHON = re.compile(r"[A-Za-z0-9_./~+-]+")


@dataclass(frozen=True)
class DeviceAddress:
    """A device that ssh reaches with a key.

    host: a name, an alias of the ssh configuration, or an address (IPv6 without its brackets).
    port: None: what ssh takes by itself. config: a file in place of ~/.ssh/config, or None.
    python: command or path of the device's Python.
    """

    user: str
    host: str
    port: int | None = None
    config: Path | None = None
    python: str = "python3"

    def __post_init__(self) -> None:
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InputError(f"--device {self}: port {self.port} does not exist; allowed are 1 to 65535")
        if self.config is not None and not self.config.is_file():
            raise InputError(f"{CONFIG_VARIABLE} names {self.config}, which is no file; name an ssh_config(5) file")
        if not _PYTHON.fullmatch(self.python):
            raise InputError(
                f"{PYTHON_VARIABLE} is {self.python!r}; a command or a path of letters, digits and . _ ~ + - / is "
                "allowed, such as ~/venv/bin/python"
            )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{self.user}@{host}" + ("" if self.port is None else f":{self.port}")

    @property
    def by_hand(self) -> str:
        """The same connection as a person would type it, for messages."""
        config = "" if self.config is None else f"-F {self.config} "
        return f"ssh {config}" + ("" if self.port is None else f"-p {self.port} ") + f"{self.user}@{self.host}"


def parse_device(text: str, environment: Mapping[str, str] | None = None) -> DeviceAddress:
    """Read `ssh://user@host[:port]`; environment: os.environ where None.

    Raises InputError for anything else; a password has no place in it.

    >>> str(parse_device("ssh://pi@[fe80::1]:2222", {}))
    'ssh://pi@[fe80::1]:2222'
    """
    environment = os.environ if environment is None else environment
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        raise InputError(_explain(text.strip()))
    config = environment.get(CONFIG_VARIABLE)
    return DeviceAddress(
        user=match["user"],
        host=match["host"].strip("[]"),
        port=None if match["port"] is None else int(match["port"]),
        config=Path(config).expanduser().absolute() if config else None,
        python=environment.get(PYTHON_VARIABLE) or "python3",
    )


def _explain(text: str) -> str:
    if text in ("auto", "cpu", "cuda"):
        return f"--device {text}: not an address of a device; {HOW}; where to train is --train-device {text}"
    if not text.startswith(SCHEME):
        return f"--device {text}: not an address of a device; {HOW}"
    login, at, _ = text[len(SCHEME) :].rpartition("@")
    if not at:
        return f"--device {text}: names no user to log in as; {HOW}"
    if ":" in login:
        # the password itself is not repeated: messages end up in logs
        return (
            f"--device {SCHEME}{login.partition(':')[0]}:...@...: passwords are not taken. Put your public key on the "
            f"device (ssh-copy-id), then {HOW}"
        )
    return f"--device {text}: user, host or port cannot be read; {HOW}"
