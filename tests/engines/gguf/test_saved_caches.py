import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.gguf.image_tokens import image_token
from engines.gguf.saved_caches import SavedCaches
from engines.gguf.slots import MIN_COPIED_TOKENS

BEGINNING = list(range(MIN_COPIED_TOKENS))
LONG = list(range(200))


def test_a_prompt_finds_the_cache_that_shares_most_with_it() -> None:
    model = SavedCaches(1000).of("model")
    model.add([*BEGINNING, 7, 7], "", b"short")
    model.add(LONG, "", b"long")

    found = model.find([*LONG[:150], 9, 9], "", whole=False)

    assert found is not None
    assert (found.cache.state, found.num_tokens) == (b"long", 150)


def test_the_last_token_of_a_prompt_is_never_cached() -> None:
    model = SavedCaches(1000).of("model")
    model.add(LONG, "", b"state")

    found = model.find(LONG, "", whole=False)

    assert found is not None
    assert found.num_tokens == len(LONG) - 1
    assert model.find(LONG, "", whole=True) is None


def test_another_model_and_another_salt_find_nothing() -> None:
    saved = SavedCaches(1000)
    saved.of("model").add(LONG, "blue", b"state")

    assert saved.of("model").find(LONG, "red", whole=False) is None
    assert saved.of("its successor").find(LONG, "blue", whole=False) is None


def test_the_least_recently_wanted_goes_when_memory_is_short() -> None:
    model = SavedCaches(10).of("model")
    first, second, third = ([at] * 100 for at in range(3))
    model.add(first, "", b"12345")
    model.add(second, "", b"12345")
    wanted = model.find([*first[:40], 9], "", whole=False)
    assert wanted is not None
    model.used(wanted)

    model.add(third, "", b"12345")

    assert model.find(first, "", whole=False) is not None
    assert model.find(second, "", whole=False) is None


def test_a_longer_cache_takes_the_place_of_its_own_beginning() -> None:
    saved = SavedCaches(1000)
    model = saved.of("model")
    model.add(LONG[:100], "", b"12345")

    assert model.wants(LONG, "")
    model.add(LONG, "", b"1234567890")

    assert saved.used_bytes == 10
    assert not model.wants(LONG[:150], "")


def test_one_of_which_most_is_restored_lives_in_its_slot_from_then_on() -> None:
    saved = SavedCaches(1000)
    model = saved.of("model")
    model.add(LONG, "", b"12345")
    found = model.find(LONG[:150], "", whole=False)
    assert found is not None

    model.used(found)

    assert saved.used_bytes == 0


def test_nothing_is_kept_where_nothing_may_be_or_after_the_end() -> None:
    closed = SavedCaches(1000)
    closed.of("model").add(LONG, "", b"12345")
    closed.close()

    assert closed.of("model").find(LONG, "", whole=False) is None
    assert not closed.of("model").wants(LONG, "")
    assert not SavedCaches(0).of("model").wants(LONG, "")
    assert not SavedCaches(1000).of("model").wants(LONG[:5], "")


def test_an_image_is_shared_whole_or_not_at_all() -> None:
    image = [image_token(b"a picture of a cat", 50, 50)] * 50
    model = SavedCaches(1000).of("model")
    model.add([*LONG, *image, 1, 2], "", b"state")

    with_more = model.find([*LONG, *image, 9, 9], "", whole=False)
    cut = model.find([*LONG, *image], "", whole=False)

    assert with_more is not None
    assert with_more.num_tokens == len(LONG) + 50
    assert cut is not None
    assert cut.num_tokens == len(LONG)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_whatever_is_added_and_used_the_budget_holds(seed: int) -> None:
    chance = random.Random(seed)
    saved = SavedCaches(100)
    for _ in range(60):
        model = saved.of(chance.choice("ab"))
        tokens = [chance.randint(0, 1)] * chance.randint(MIN_COPIED_TOKENS, 80)
        salt = chance.choice(["", "red"])
        if chance.random() < 0.6:
            model.add(tokens, salt, bytes(chance.randint(1, 120)))
        elif (found := model.find(tokens, salt, whole=chance.random() < 0.3)) is not None:
            assert found.cache.tokens[: found.num_tokens] == tokens[: found.num_tokens]
            assert found.num_tokens < len(tokens)
            chance.choice([model.used, model.discard])(found)
        assert 0 <= saved.used_bytes <= 100
