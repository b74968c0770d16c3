"""Which remotes Git may connect to, and what makes it connect to exactly the address that was checked."""

import ipaddress
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.request import proxy_bypass

from services.runtime.addresses import AddressError, IpAddress, UnresolvedError, checked_addresses, is_public
from services.vcs.errors import GitError, RepositoryRefusedError
from services.vcs.git.repositories import Endpoint, Repository

RESOLVE_TIMEOUT: Final = timedelta(seconds=10)
# A connection that has died is noticed within a minute, as over http, and not only at the command's deadline.
_SSH_ALIVE: Final = ("-oServerAliveInterval=15", "-oServerAliveCountMax=3")
_SSH_OPTIONS: Final = ("-oBatchMode=yes", "-oConnectTimeout=15", "-oForwardAgent=no", "-oCheckHostIP=no", *_SSH_ALIVE)
_PROXY_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    # In capitals the first could be set by whoever calls a CGI program; curl does not read it either.
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}


@dataclass(frozen=True, slots=True)
class AllowedRemotes:
    """Remotes outside of the internet at large that may be asked. All of the internet's may."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AllowedRemotes":
        """Read hosts, ``host:port`` pairs and networks (CIDR), separated by commas. Raises ``ValueError``."""
        hosts, networks = set(), []
        for entry in filter(None, (part.strip().lower() for part in text.split(","))):
            network = _network(entry)
            if network is not None:
                networks.append(network)
            elif "/" in entry or "@" in entry:
                raise ValueError(
                    f"{entry!a} is no host, host:port or network; write them as in git.internal,10.0.0.0/8"
                )
            else:
                hosts.add(entry)
        return cls(frozenset(hosts), tuple(networks))

    def allows(self, endpoint: Endpoint, address: IpAddress) -> bool:
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        if is_public(address) or not self.hosts.isdisjoint({endpoint.host, f"{host}:{endpoint.port}"}):
            return True
        return any(address in network for network in self.networks)

    def names(self, endpoint: Endpoint) -> bool:
        """Whether the host itself is listed, whatever its addresses are."""
        return self.allows(endpoint, _UNSPECIFIED)


_UNSPECIFIED: Final = ipaddress.IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Approach:
    """How one Git command reaches its remote: configuration, environment, descriptors handed over, and what to hide."""

    configuration: tuple[tuple[str, str], ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """``known_hosts``: the only host keys to accept over ssh; None: a host's first key is accepted and remembered.

    ``ssh_auth_sock``: the agent that holds the keys for ssh, which no other program of ours is told of.
    """

    allowed: AllowedRemotes = AllowedRemotes()
    allow_insecure_http: bool = False
    known_hosts: Path | None = None
    ssh_auth_sock: str = field(default_factory=lambda: os.environ.get("SSH_AUTH_SOCK", ""))

    @property
    def schemes(self) -> tuple[str, ...]:
        return ("https", "ssh", *(("http",) if self.allow_insecure_http else ()))

    async def approach(self, repository: Repository, endpoint: Endpoint) -> Approach:
        """Check where ``endpoint`` leads and pin Git to it.

        Raises ``RepositoryRefusedError``; ``GitError`` where its name cannot be resolved now.
        """
        if endpoint.scheme not in self.schemes:
            words = f"{repository.url} would be asked over plain http, which is not allowed here; use https"
            raise RepositoryRefusedError(words)
        if endpoint.scheme == "ssh":
            return Approach(variables=self._ssh(endpoint, await self._addresses(repository, endpoint)))
        proxy = _proxy(endpoint)
        if proxy and _is_name(endpoint.host):
            self._refuse_own_name(repository, endpoint)
            return Approach(variables={f"{endpoint.scheme}_proxy": proxy})
        addresses = await self._addresses(repository, endpoint)
        if proxy:
            return Approach(variables={f"{endpoint.scheme}_proxy": proxy})
        return Approach(configuration=_pinned(endpoint, addresses))

    async def _addresses(self, repository: Repository, endpoint: Endpoint) -> tuple[str, ...]:
        if not _is_name(endpoint.host) and not _is_plain(endpoint.host):
            # Whoever reads it next may read another address out of it.
            raise RepositoryRefusedError(f"{repository.url} has an address in an odd spelling; write all four numbers")
        try:
            return await checked_addresses(
                endpoint.host,
                endpoint.port,
                is_allowed=lambda address: self.allowed.allows(endpoint, address),
                timeout=RESOLVE_TIMEOUT,
            )
        except UnresolvedError as error:
            words = f"Could not resolve host: {endpoint.host}"
            raise GitError(f"{repository.url} was not asked: {error}", git_message=words) from error
        except AddressError as error:
            advice = "allow it in QUARTERDECK_GIT_ALLOWED_REMOTES if it is meant"
            raise RepositoryRefusedError(f"{repository.url} was not asked: {error}; {advice}") from error

    def _refuse_own_name(self, repository: Repository, endpoint: Endpoint) -> None:
        """A name that a proxy would take for its own machine."""
        name = endpoint.host.rstrip(".")
        if (name == "localhost" or name.endswith(".localhost")) and not self.allowed.names(endpoint):
            raise RepositoryRefusedError(f"{repository.url} was not asked: {name} is the machine of the proxy")

    def _ssh(self, endpoint: Endpoint, addresses: tuple[str, ...]) -> dict[str, str]:
        # Keys stay those of the name, as known_hosts files spell it.
        name = endpoint.host if endpoint.authority == endpoint.host else f"[{endpoint.host}]:{endpoint.port}"
        keys = (
            ("-oStrictHostKeyChecking=accept-new",)
            if self.known_hosts is None
            else ("-oStrictHostKeyChecking=yes", f'-oUserKnownHostsFile="{self.known_hosts}"')
        )
        pinned = (f"-oHostName={addresses[0]}", f"-oHostKeyAlias={name}")
        agent = f"SSH_AUTH_SOCK={shlex.quote(self.ssh_auth_sock)} " if self.ssh_auth_sock else ""
        command = shlex.join(("ssh", *_SSH_OPTIONS, *keys, *pinned))
        return {"GIT_SSH_COMMAND": agent + command, "GIT_SSH_VARIANT": "ssh"}


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry)
    except ValueError as error:
        if "host bits" in str(error):
            raise
        return None


def _pinned(endpoint: Endpoint, addresses: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Configuration that gives Git the addresses of the name; nothing else is asked for them."""
    if not _is_name(endpoint.host):
        return ()
    listed = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
    return (("http.curloptResolve", f"{endpoint.host}:{endpoint.port}:{listed}"),)


def _proxy(endpoint: Endpoint) -> str:
    """The deployment's proxy for ``endpoint``; decided here alone, so that Git cannot decide otherwise."""
    bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    host = f"{endpoint.host}:{endpoint.port}"
    if bypassed and proxy_bypass(host, {"no": bypassed}):
        return ""
    return next(filter(None, (os.environ.get(name) for name in _PROXY_VARIABLES[endpoint.scheme])), "")


def _is_name(host: str) -> bool:
    """Whether ``host`` has to be looked up; addresses in any spelling have not."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return True
    return False


def _is_plain(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
