from gateway.hang_up import SCOPE_KEY, HangUp, hang_up_of


def test_who_listens_is_told_once_the_client_leaves_and_reading_goes_on() -> None:
    seen: list[str] = []
    hang_up = HangUp(lambda: seen.append("reads"))

    hang_up.listen(lambda: seen.append("left"))
    assert seen == ["reads"]
    hang_up.happen()

    assert seen == ["reads", "left"]


def test_who_listens_too_late_is_told_at_once() -> None:
    seen: list[str] = []
    hang_up = HangUp(lambda: None)
    hang_up.happen()

    hang_up.listen(lambda: seen.append("left"))

    assert seen == ["left"]


def test_who_has_what_it_wants_is_not_told() -> None:
    seen: list[str] = []
    hang_up = HangUp(lambda: None)
    hang_up.listen(lambda: seen.append("left"))

    hang_up.forget()
    hang_up.happen()

    assert seen == []


def test_another_server_has_no_word_of_it() -> None:
    hang_up = HangUp(lambda: None)

    assert hang_up_of({"extensions": {SCOPE_KEY: hang_up}}) is hang_up
    assert hang_up_of({"extensions": None}) is None
    assert hang_up_of({}) is None
