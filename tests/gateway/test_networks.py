import pytest

from gateway.networks import UNKNOWN_ADDRESS, is_in, network_problem, true_client

PROXIES = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("address", "networks", "expected"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("10.1.2.3", ["10.0.0.0/8", "!10.1.0.0/16"], False),
        ("10.1.2.3", ["!10.1.0.0/16", "10.0.0.0/8"], False),
        ("10.1.2.3", ["*"], True),
        ("10.1.2.3", ["10.1.2.3"], True),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("2001:db8::7", ["2001:db8::/32"], True),
        ("2001:db8::7", ["0.0.0.0/0"], False),
        ("10.1.2.3", ["::/0"], False),
        ("10.1.2.3", [], False),
        ("10.1.2.3", ["!10.0.0.0/8"], False),
        (None, ["unix"], True),
        (None, ["*"], True),
        (None, ["*", "!unix"], False),
        (None, ["127.0.0.0/8"], False),
        ("127.0.0.1", ["unix"], False),
        (UNKNOWN_ADDRESS, ["*"], False),
        ("10.1.2.3 ", ["*"], False),
        ("", ["*"], False),
        ("010.1.2.3", ["*"], False),
        ("10.1.2.3", ["*", "!nonsense"], False),
    ],
)
def test_an_address_is_in_networks_by_allowing_and_denying(
    address: str | None, networks: list[str], expected: bool
) -> None:
    assert is_in(address, networks) is expected


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("10.0.0.0/8", ""),
        ("!10.0.0.0/8", ""),
        ("2001:db8::/32", ""),
        ("192.0.2.7", ""),
        ("*", ""),
        ("unix", ""),
        ("10.0.0.7/8", "write 10.0.0.0/8"),
        ("example.com", "is not a network"),
        ("", "is not a network"),
        ("10.0.0.0/33", "is not a network"),
    ],
)
def test_what_is_no_network_is_told_with_what_was_meant(pattern: str, problem: str) -> None:
    assert problem in network_problem(pattern)
    assert bool(network_problem(pattern)) == bool(problem)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "expected"),
    [
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("127.0.0.1", "1.1.1.1, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("127.0.0.1", "127.0.0.1, 192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7:5050", "192.0.2.7"),
        ("127.0.0.1", "[2001:db9::7]:443", "2001:db9::7"),
        ("127.0.0.1", "2001:db9::7", "2001:db9::7"),
        ("127.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("::ffff:127.0.0.1", "192.0.2.7", "192.0.2.7"),
        # Nobody else is believed.
        ("192.0.2.9", "10.0.0.2", "192.0.2.9"),
        ("192.0.2.9", "127.0.0.1", "192.0.2.9"),
        (None, "192.0.2.7", None),
        # What cannot be read is nobody's address, and least of all this machine's.
        ("127.0.0.1", "", UNKNOWN_ADDRESS),
        ("127.0.0.1", "unknown", UNKNOWN_ADDRESS),
        ("127.0.0.1", "127.0.0.1,", UNKNOWN_ADDRESS),
        ("127.0.0.1", "_hidden", UNKNOWN_ADDRESS),
        ("127.0.0.1", "192.0.2.7:http", UNKNOWN_ADDRESS),
        ("127.0.0.1", "[::1]x", UNKNOWN_ADDRESS),
        ("127.0.0.1", "localhost", UNKNOWN_ADDRESS),
        ("127.0.0.1", "127.0.0.1, evil, 10.0.0.2", UNKNOWN_ADDRESS),
        ("127.0.0.1", ",".join(["10.0.0.2"] * 100), UNKNOWN_ADDRESS),
        ("127.0.0.1", "127.0.0.1" + ", 10.0.0.2" * 50, UNKNOWN_ADDRESS),
    ],
)
def test_the_caller_is_the_last_address_that_is_no_trusted_proxy(
    peer: str | None, forwarded_for: str | None, expected: str | None
) -> None:
    assert true_client(peer, forwarded_for, PROXIES) == expected


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert true_client("127.0.0.1", "192.0.2.7", ()) == "127.0.0.1"


def test_a_proxy_on_a_unix_socket_is_believed_by_name() -> None:
    assert true_client(None, "192.0.2.7", ("unix",)) == "192.0.2.7"
