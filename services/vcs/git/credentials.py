"""What the service shows to remotes: where it comes from, how one Git command gets it, how it is kept out of texts.

A credential is never in a URL, an argument, a configuration file, an environment value or a log.
"""

import base64
import contextlib
import os
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Protocol
from urllib.parse import quote

import orjson
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from services.vcs.errors import CredentialsError
from services.vcs.git.repositories import Endpoint, Repository

HIDDEN: Final = "***"
MAX_FILE_BYTES: Final = 1024 * 1024
# What forges that look at the token alone take for a user name.
TOKEN_USERNAME: Final = "x-access-token"  # noqa: S105  a user name
_HTTPS_PORT: Final = 443


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name, and a password or token. Raises ``CredentialsError`` for what Git could not be told."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if any(character in self.username + self.password for character in "\n\r\0"):
            raise CredentialsError("a credential holds a line end or NUL character; remove it")
        if not self.username or not self.password:
            raise CredentialsError("a credential has no user name or no password; set both")

    def forms(self) -> frozenset[str]:
        """The secret in every shape in which a program may repeat it."""
        pair = f"{self.username}:{self.password}".encode("utf-8", "surrogateescape")
        raw = self.password.encode("utf-8", "surrogateescape")
        encoded = {
            encode(data).decode("ascii").rstrip("=")
            for encode in (base64.b64encode, base64.urlsafe_b64encode)
            for data in (pair, raw)
        }
        return frozenset({self.password, quote(raw), quote(raw, safe=""), *encoded})


class Credentials(Protocol):
    async def of(self, repository: Repository) -> Credential | None:
        """What to show to the remote of ``repository`` (http or https); None: nothing. Raises ``VcsError``."""


class NoCredentials:
    """For remotes that everybody may read."""

    async def of(self, repository: Repository) -> Credential | None:  # noqa: ARG002  the protocol's
        return None


class ChainedCredentials:
    """The first of ``providers`` that knows the repository."""

    def __init__(self, *providers: Credentials) -> None:
        self._providers = providers

    async def of(self, repository: Repository) -> Credential | None:
        for provider in self._providers:
            if (credential := await provider.of(repository)) is not None:
                return credential
        return None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    username: Annotated[str, Field(min_length=1)] = TOKEN_USERNAME
    password: Annotated[SecretStr, Field(min_length=1, validation_alias=AliasChoices("password", "token"))]


_ENTRIES: Final = TypeAdapter(dict[str, _Entry])


class StaticCredentials:
    """One credential a host and port; a host without a port means https on 443 and nothing else on that host."""

    def __init__(self, entries: Mapping[str, Credential]) -> None:
        """``entries``: by ``host`` or ``host:port``. Raises ``CredentialsError``."""
        self._entries = {_host_and_port(name): credential for name, credential in entries.items()}

    @classmethod
    def load(cls, path: Path) -> "StaticCredentials":
        """Read a TOML file (JSON where it ends in .json): a table a host with `username` and `password` or `token`.

        Raises ``CredentialsError``, which repeats nothing of the file but names of hosts.
        """
        data = _read(path)
        try:
            parsed = orjson.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode())
        except ValueError:
            kind = "JSON" if path.suffix == ".json" else "TOML"
            raise CredentialsError(f"{path} is not {kind}; write a table a host, with username and password") from None
        try:
            entries = _ENTRIES.validate_python(parsed)
            return cls({name: Credential(e.username, e.password.get_secret_value()) for name, e in entries.items()})
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise CredentialsError(f"{path}: {where or 'the file'}: {problem['msg']}") from None
        except CredentialsError as error:
            raise CredentialsError(f"{path}: {error.message}") from None

    async def of(self, repository: Repository) -> Credential | None:
        endpoint = repository.endpoint
        return None if endpoint is None else self._entries.get((endpoint.host, endpoint.port))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CredentialsError(f"{path} is no file; name one that holds the credentials")
            if status.st_mode & stat.S_IRWXO:
                raise CredentialsError(f"{path} is open to every user of this machine; run: chmod o= {path}")
            if status.st_size > MAX_FILE_BYTES:
                raise CredentialsError(f"{path} has more than {MAX_FILE_BYTES} bytes; name the file of credentials")
            return file.read()
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}; correct its path or permissions") from None


def _host_and_port(name: str) -> tuple[str, int]:
    host, colon, port = name.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = name, str(_HTTPS_PORT)
    host = host.removeprefix("[").removesuffix("]").lower()
    if not host or "/" in name or "@" in name or not port.isascii() or not port.isdecimal():
        raise CredentialsError(f"{name[:100]!a} is neither host nor host:port; write it as in git.example.org:8443")
    return host, int(port)


@contextlib.contextmanager
def handed_over(credential: Credential) -> Iterator[int]:
    """The descriptor of a file in memory that holds ``credential`` in the words of Git's credential protocol."""
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC)
    try:
        text = f"username={credential.username}\npassword={credential.password}\n"
        os.write(descriptor, text.encode("utf-8", "surrogateescape"))
        yield descriptor
    finally:
        os.close(descriptor)


def helper_configuration(endpoint: Endpoint, descriptor: int) -> tuple[str, str]:
    """Configuration that makes Git read the descriptor when ``endpoint``, and only it, asks who we are.

    It is opened anew each time, so that it can be read again; what Git wants stored or erased goes nowhere.
    """
    script = f'!read_it() {{ if test "$1" = get; then cat /dev/fd/{descriptor}; fi; }}; read_it'
    return f"credential.{endpoint.scheme}://{endpoint.authority}.helper", script


def hide(text: str, secrets: Collection[str]) -> str:
    """``text`` with every one of ``secrets`` replaced."""
    # The longest first: a shorter one may be a part of it.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
