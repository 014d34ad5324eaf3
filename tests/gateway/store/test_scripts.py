from gateway.store import Bucket
from gateway.store.redis_wire import encoded
from gateway.store.scripts import script_call, script_of, told

TOKENS = Bucket(kind="rate", key="tokens", limit=60, burst=60)
CALLS = Bucket(kind="leases", key="größe", limit=5)
KEYS = [b"{penstock}:call:c1", b"{penstock}:limit:tokens", "{penstock}:limit:größe".encode()]


def test_a_call_of_a_script_is_one_command_by_digest_or_whole() -> None:
    asked, script = told((TOKENS, CALLS)).called("settle", "c1", b"\x90"), script_of("settle")

    assert asked.by_digest() == encoded([b"EVALSHA", script.digest, b"3", *KEYS, b"\x90"])
    assert asked.whole() == encoded([b"EVAL", script.source, b"3", *KEYS, b"\x90"])
    assert script_call("settle", KEYS, b"\x90") == asked


def test_a_running_call_renews_its_leases_and_nothing_else() -> None:
    assert list(told((TOKENS, CALLS)).leases) == KEYS[2:]
    assert not told((TOKENS,)).leases
