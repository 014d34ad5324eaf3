import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import BadRequest, Forbidden, Principal
from gateway.endpoints import matches
from gateway.keys import check_minting
from gateway.keys.minting import covers
from gateway.narrowing import NOT_NARROWED, Narrowing
from gateway.networks import is_in
from gateway.policy import LimitPolicy, TeamPolicy
from tests.plugins.policies import policy_of

TEAMS = (
    TeamPolicy(name="platform", models=["*"], endpoints=["*"]),
    TeamPolicy(name="office", models=["*"], endpoints=["*"], networks=["10.0.0.0/8"]),
    TeamPolicy(name="search", models=["chat-*", "!chat-secret"], endpoints=["openai.*"]),
)
POLICY = policy_of(teams=TEAMS, limits=[LimitPolicy(name="bulk")])


def check(
    maker_team: str = "platform",
    *,
    team: str = "search",
    own: Narrowing = NOT_NARROWED,
    wanted: Narrowing = NOT_NARROWED,
    role: str = "admin",
) -> None:
    maker = Principal(name="m", team=maker_team, role=role, narrowing=own)  # type: ignore[arg-type]
    check_minting(POLICY, maker, team=team, narrowing=wanted)


def test_an_admin_who_may_do_everything_makes_any_key() -> None:
    check()
    check(team="platform")
    check(wanted=Narrowing(models=["chat-small"], limits="bulk"))


def test_a_member_makes_no_key() -> None:
    with pytest.raises(Forbidden, match="role admin"):
        check(role="member")


def test_a_key_for_a_team_that_may_do_more_is_refused() -> None:
    check("search", team="search")
    with pytest.raises(Forbidden, match="models"):
        check("search", team="platform")
    with pytest.raises(Forbidden, match="networks"):
        check("office", team="platform")
    check("office", team="platform", wanted=Narrowing(networks=["10.1.0.0/16"]))


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (Narrowing(models=["chat-small"]), NOT_NARROWED),
        (Narrowing(models=["chat-small"]), Narrowing(models=["chat-*"])),
        (Narrowing(models=["*", "!chat-x"]), Narrowing(models=["chat-*"])),
        (Narrowing(endpoints=["admin.keys"]), NOT_NARROWED),
        (Narrowing(endpoints=["admin.keys"]), Narrowing(endpoints=["admin.*"])),
        (Narrowing(endpoints=["openai.*"]), Narrowing(endpoints=["*", "!admin.*"])),
        (Narrowing(networks=["10.0.0.0/8"]), NOT_NARROWED),
        (Narrowing(networks=["10.0.0.0/8"]), Narrowing(networks=["0.0.0.0/0"])),
        (Narrowing(networks=["10.0.0.0/8"]), Narrowing(networks=["10.0.0.0/8", "unix"])),
        (Narrowing(limits="bulk"), NOT_NARROWED),
    ],
)
def test_no_key_may_do_more_than_the_one_that_made_it(own: Narrowing, wanted: Narrowing) -> None:
    with pytest.raises(Forbidden):
        check(team="platform", own=own, wanted=wanted)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (Narrowing(models=["chat-*"]), Narrowing(models=["chat-small", "chat-*-x"])),
        (Narrowing(models=["*", "!chat-x"]), Narrowing(models=["chat-*", "!chat-x*"])),
        (Narrowing(networks=["10.0.0.0/8"]), Narrowing(networks=["10.2.0.0/16", "10.0.0.7"])),
        (Narrowing(limits="bulk"), Narrowing(limits="bulk")),
    ],
)
def test_the_same_or_less_is_allowed(own: Narrowing, wanted: Narrowing) -> None:
    check(team="platform", own=own, wanted=wanted)


def test_what_the_policy_does_not_have_is_refused() -> None:
    with pytest.raises(BadRequest, match="no team 'gone'"):
        check(team="gone")
    with pytest.raises(BadRequest, match="no limits"):
        check(wanted=Narrowing(limits="gone"))
    with pytest.raises(Forbidden):
        check("gone")


GLOBS = st.lists(st.text(alphabet="ab*!", max_size=5), min_size=1, max_size=3)
NAMES = st.text(alphabet="ab!", max_size=5)


@given(GLOBS, GLOBS, st.lists(NAMES, max_size=20))
def test_a_list_that_covers_another_allows_all_that_it_allows(
    wide: list[str], narrow: list[str], names: list[str]
) -> None:
    if covers(wide, narrow):
        assert [name for name in names if matches(name, narrow) and not matches(name, wide)] == []


NETWORKS = st.lists(
    st.sampled_from(
        ["*", "unix", "10.0.0.0/8", "10.0.0.0/31", "10.0.0.1", "::/0", "!10.0.0.1", "!*", "!unix"]
    ),
    min_size=1,
    max_size=4,
)


@given(NETWORKS, NETWORKS)
def test_networks_that_cover_others_hold_all_their_addresses(
    wide: list[str], narrow: list[str]
) -> None:
    addresses = [None, "10.0.0.0", "10.0.0.1", "10.9.9.9", "192.0.2.1", "::1", "unknown"]
    if covers(wide, narrow, networks=True):
        assert [each for each in addresses if is_in(each, narrow) and not is_in(each, wide)] == []
