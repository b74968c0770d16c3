"""What may name a repository, a branch or a commit. Pure: reads text, decides, opens nothing."""

import hashlib
import posixpath
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from services.vcs.errors import RefRefusedError, RepositoryRefusedError, redact

MAX_ADDRESS_CHARACTERS: Final = 2_000
MAX_REF_CHARACTERS: Final = 250
_SHOWN_CHARACTERS: Final = 100

_DEFAULT_PORTS: Final = {"https": 443, "http": 80, "ssh": 22}
_SCP_FORM: Final = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>[A-Za-z0-9.-]+):(?P<path>[^:].*)", re.ASCII)
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")
_PATH: Final = re.compile(r"[\w.~+@%,=/-]+", re.ASCII)
_SSH_USER: Final = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
_REF: Final = re.compile(r"\w[\w./+@#=,-]*")
_SHA: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_SHA: Final = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a command connects to. ``host``: in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """``host``, or ``host:port`` where the port is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Repository:
    """``url``: what Git is given. ``key``: host/owner/name however it was spelt. ``folder``: its mirror's name."""

    url: str
    key: str
    folder: str

    @property
    def endpoint(self) -> Endpoint | None:
        """None for a path on this machine. Raises ``RepositoryRefusedError`` where ``url`` is neither."""
        if self.url.startswith("/"):
            return None
        if "://" in self.url:
            url, port = _split(self.url)
            return Endpoint(url.scheme, _host(self.url, url.hostname or ""), port)
        scp = _scp(self.url)
        return Endpoint("ssh", _host(self.url, scp["host"]), _DEFAULT_PORTS["ssh"])


def parse_repository(address: str, *, allow_local: bool) -> Repository:
    """Read an https, ssh or http URL, ``user@host:path``, or (``allow_local``) an absolute path or file: URL.

    Whether plain http and the host may be asked is decided where Git is run. Raises ``RepositoryRefusedError`` with
    what is wrong and what to write instead.
    """
    _refuse_unreadable(address)
    if address.startswith("/") or address.lower().startswith("file:"):
        return _local(address, allow_local=allow_local)
    if "://" in address:
        return _from_url(address)
    scp = _scp(address)
    path, key = _path_and_key(address, scp["path"])
    host = _host(address, scp["host"])
    user = f"{scp['user']}@" if scp["user"] else ""
    return _repository(f"{user}{host}:{path}", f"{host}/{key}")


def checked_ref(ref: str) -> str:
    """``ref`` if it is a branch, tag or full ref name of allowed characters; raises ``RefRefusedError``."""
    parts = ref.split("/")
    if (
        len(ref) > MAX_REF_CHARACTERS
        or not _REF.fullmatch(ref)
        or ".." in ref
        or "@{" in ref
        or any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts)
    ):
        raise RefRefusedError(
            f"{_shown(ref)} cannot name a branch, tag or commit here; use letters, digits and . _ / + @ # = , -"
        )
    return ref


def checked_sha(sha: str) -> str:
    """``sha`` if it is a full commit SHA in lower case; raises ``RefRefusedError``."""
    if not _SHA.fullmatch(sha):
        raise RefRefusedError(f"{_shown(sha)} is no full commit SHA; write 40 (or 64) digits of 0-9a-f")
    return sha


def is_sha(text: str) -> bool:
    return _SHA.fullmatch(text) is not None


def is_short_sha(text: str) -> bool:
    return _SHORT_SHA.fullmatch(text) is not None


def _refuse_unreadable(address: str) -> None:
    if not address:
        raise RepositoryRefusedError("the repository is empty; write its URL")
    if len(address) > MAX_ADDRESS_CHARACTERS:
        raise RepositoryRefusedError(
            f"the repository's address is over {MAX_ADDRESS_CHARACTERS} characters; shorten it"
        )
    if not address.isprintable() or "\\" in address:
        raise _refused(address, "holds a control character, surrogate or backslash; remove it")
    if address.startswith("-"):
        raise _refused(address, "begins with a dash and could be read as an option; write a URL")


def _scp(address: str) -> re.Match[str]:
    scp = _SCP_FORM.fullmatch(address)
    if scp is None or "::" in address:
        raise _refused(address, "is no repository address; write https://host/owner/name or git@host:owner/name")
    return scp


def _split(address: str) -> tuple[SplitResult, int]:
    """The parts of a URL, and the port it means."""
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError as error:
        raise _refused(address, f"is no URL ({error}); write https://host/owner/name") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise _refused(address, f"has the scheme {url.scheme!r}; use https or ssh")
    return url, _DEFAULT_PORTS[url.scheme] if port is None else port


def _from_url(address: str) -> Repository:
    url, port = _split(address)
    if url.query or url.fragment:
        raise _refused(address, "has a query or fragment; name branches and commits as the base ref")
    host = _host(address, url.hostname or "")
    path, key = _path_and_key(address, url.path)
    authority = Endpoint(url.scheme, host, port).authority
    return _repository(f"{url.scheme}://{_user(address, url)}{authority}{path}", f"{authority}/{key}")


def _user(address: str, url: SplitResult) -> str:
    """An ssh URL's user; a password or token in any URL is refused, for it would end up in process lists and logs."""
    if url.username is None and url.password is None:
        return ""
    if url.scheme != "ssh" or url.password is not None:
        raise _refused(
            address, "carries a user name or token; remove it and give the vcs service the credentials of its host"
        )
    if not _SSH_USER.fullmatch(url.username or ""):
        raise _refused(address, "has a user name that is not letters, digits and . _ -; correct it")
    return f"{url.username}@"


def _local(address: str, *, allow_local: bool) -> Repository:
    path = address
    if not address.startswith("/"):
        url = urlsplit(address)
        if url.netloc not in {"", "localhost"} or url.query or url.fragment or not url.path.startswith("/"):
            raise _refused(address, "is no local repository; write file:///absolute/path")
        path = unquote(url.path)
    if not allow_local:
        raise _refused(address, "is a local path, and local repositories are not allowed here; write a URL")
    if not path.isprintable() or ".." in path.split("/"):
        raise _refused(address, "has a '..' or an unprintable character in its path; write the plain absolute path")
    path = "/" + posixpath.normpath(path).strip("/")
    return _repository(path, f"local{path.removesuffix('.git').rstrip('/') or '/'}")


def _host(address: str, host: str) -> str:
    host = host.lower()
    if not _HOST.fullmatch(host) or ".." in host:
        raise _refused(address, "has no usable host name; write https://host/owner/name")
    return host


def _path_and_key(address: str, path: str) -> tuple[str, str]:
    """The path without trailing slashes, and what identifies the repository on its host."""
    path = path.rstrip("/")
    key = unquote(path).strip("/").removesuffix(".git")
    if not _PATH.fullmatch(path) or not key.isprintable():
        raise _refused(address, "names no repository by plain characters; write https://host/owner/name")
    if any(part in {"", ".", ".."} or part.startswith("-") for part in key.split("/")):
        raise _refused(address, "has an empty part, '.', '..' or a leading dash in its path; write the plain path")
    return path, key


def _repository(url: str, key: str) -> Repository:
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(key.split("/")[-2:])).strip("-.")[-60:]
    return Repository(url, key, f"{slug}-{hashlib.sha256(key.encode()).hexdigest()[:16]}")


def _refused(address: str, words: str) -> RepositoryRefusedError:
    return RepositoryRefusedError(f"the repository {_shown(address)} {words}")


def _shown(text: str) -> str:
    # Redacted before it is cut: half a token is one too.
    text = redact(text)
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
