"""Which addresses and refs are taken, what they mean, and the words that the others are refused with."""

import pytest

from services.vcs.errors import RefRefusedError, RepositoryRefusedError
from services.vcs.git.repositories import Endpoint, Repository, checked_ref, checked_sha, parse_repository


@pytest.mark.parametrize(
    ("address", "url", "key"),
    [
        ("https://GitHub.com/Owner/name.git", "https://github.com/Owner/name.git", "github.com/Owner/name"),
        ("https://github.com:443/o/n/", "https://github.com/o/n", "github.com/o/n"),
        ("http://host:8080/o/n", "http://host:8080/o/n", "host:8080/o/n"),
        ("ssh://git@host:22/o/n.git", "ssh://git@host/o/n.git", "host/o/n"),
        ("git@github.com:o/n.git", "git@github.com:o/n.git", "github.com/o/n"),
        ("https://[::1]:8443/o/n", "https://[::1]:8443/o/n", "[::1]:8443/o/n"),
        ("https://host/o/with%20space", "https://host/o/with%20space", "host/o/with space"),
        ("/srv/git//demo.git/", "/srv/git/demo.git", "local/srv/git/demo"),
        ("file:///srv/git/demo", "/srv/git/demo", "local/srv/git/demo"),
    ],
)
def test_an_address_is_normalised(address: str, url: str, key: str) -> None:
    repository = parse_repository(address, allow_local=True)
    assert (repository.url, repository.key) == (url, key)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "empty"),
        ("--upload-pack=touch /tmp/x", "dash"),
        ("-oProxyCommand=x", "dash"),
        ("ext::sh -c whoami", "no repository address"),
        ("fd::17/foo", "no repository address"),
        ("ftp://host/o/n", "scheme"),
        ("git://host/o/n", "use https or ssh"),
        ("https://localhost./o/n", "host name"),
        ("ext://host/o/n", "scheme"),
        ("https://user:token@host/o/n", "token"),
        ("https://token@host/o/n", "token"),
        ("ssh://git:password@host/o/n", "token"),
        ("ssh://-oProxyCommand=x@host/o", "user name"),
        ("ssh://-oProxyCommand=x/o", "host name"),
        ("git@-host:o/n", "host name"),
        ("https://host/../n", "'..'"),
        ("https://host/%2e%2e/n", "'..'"),
        ("https://host/o/-n", "dash"),
        ("https://host", "plain characters"),
        ("https:///o/n", "host name"),
        ("https://host/o/n?ref=x", "query"),
        ("https://host/o/n#x", "fragment"),
        ("https://host:99999/o/n", "no URL"),
        ("https://host/o/n\0", "control"),
        ("https://host/o\nn", "control"),
        ("https://host/o/\udc80", "surrogate"),
        ("https://host/%00", "plain characters"),
        ("C:\\repo", "backslash"),
        ("relative/path", "no repository address"),
        ("/srv/../etc", "'..'"),
        ("file://host/srv", "file:///absolute/path"),
        ("https://host/" + "a" * 2_000, "2000"),
    ],
)
def test_an_address_is_refused_with_words(address: str, words: str) -> None:
    with pytest.raises(RepositoryRefusedError) as caught:
        parse_repository(address, allow_local=True)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("address", "endpoint", "authority"),
    [
        ("https://Host/o/n", Endpoint("https", "host", 443), "host"),
        ("http://host:8080/o/n", Endpoint("http", "host", 8080), "host:8080"),
        ("https://[::1]:8443/o/n", Endpoint("https", "::1", 8443), "[::1]:8443"),
        ("ssh://git@host:2222/o/n", Endpoint("ssh", "host", 2222), "host:2222"),
        ("git@host:o/n", Endpoint("ssh", "host", 22), "host"),
    ],
)
def test_what_a_repository_connects_to(address: str, endpoint: Endpoint, authority: str) -> None:
    repository = parse_repository(address, allow_local=False)
    assert repository.endpoint == endpoint
    assert endpoint.authority == authority


def test_a_path_connects_to_nothing_and_what_is_no_address_raises() -> None:
    assert parse_repository("/srv/demo", allow_local=True).endpoint is None
    with pytest.raises(RepositoryRefusedError):
        _ = Repository("--upload-pack=x", "key", "folder").endpoint


@pytest.mark.parametrize("address", ["/srv/git/demo", "file:///srv/git/demo", "FILE:///srv/git/demo"])
def test_local_repositories_need_to_be_allowed(address: str) -> None:
    with pytest.raises(RepositoryRefusedError, match="not allowed here"):
        parse_repository(address, allow_local=False)


def test_a_refused_token_is_not_repeated() -> None:
    address = f"https://user:{'s3cret' * 40}@host/o/n"
    with pytest.raises(RepositoryRefusedError) as caught:
        parse_repository(address, allow_local=False)
    assert "s3cret" not in str(caught.value)


def test_spellings_of_one_repository_share_a_mirror_and_others_do_not() -> None:
    same = [
        "https://github.com/o/n",
        "https://GITHUB.com:443/o/n.git",
        "git@github.com:o/n.git",
        "ssh://git@github.com/o/n/",
    ]
    assert len({parse_repository(address, allow_local=False).folder for address in same}) == 1
    others = [
        "https://github.com/o-n",
        "https://github.com/o/n/",
        "https://github.com/x/o/n",
        "https://o/n",
        "https://o-n/x",
    ]
    folders = {parse_repository(address, allow_local=False).folder for address in others}
    assert len(folders) == len(others)
    assert all(folder.isascii() and "/" not in folder for folder in folders)


@pytest.mark.parametrize("ref", ["main", "feature/a+b", "v1.0", "refs/heads/x", "größe", "a@b", "#12"[1:], "a=b,c"])
def test_a_ref_is_taken(ref: str) -> None:
    assert checked_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    [
        *("", "-x", "--upload-pack=x", "$(x)", "a;b", "a b", "a..b", "a@{1}", "a//b", "/a", "a/", ".a", "a/.b", "a."),
        *("a.lock", "a.lock/b", "a\nb", "a\0", "a~1", "a^", "a:b", "a*", "a?", "a[b", "a\\b", "`a`", "a" * 251),
    ],
)
def test_a_ref_is_refused(ref: str) -> None:
    with pytest.raises(RefRefusedError):
        checked_ref(ref)


@pytest.mark.parametrize("sha", ["", "abc", "A" * 40, "g" * 40, "a" * 41, "a" * 40 + "\n"])
def test_only_a_full_sha_is_a_sha(sha: str) -> None:
    assert checked_sha("a" * 40) == "a" * 40
    with pytest.raises(RefRefusedError):
        checked_sha(sha)
