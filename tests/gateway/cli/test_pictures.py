from collections.abc import Mapping

import pytest

from gateway.cli.pictures import sees_pictures


@pytest.mark.parametrize(
    ("shown", "sees"),
    [
        ({"capabilities": ["completion", "vision"]}, True),
        ({"capabilities": ["completion"]}, False),
        ({"capabilities": []}, False),
        ({"template": ""}, True),  # an upstream that does not say what its models can do
        ({}, False),  # it may not be asked
    ],
)
def test_a_model_sees_unless_it_is_known_that_it_does_not(
    shown: Mapping[str, object], *, sees: bool
) -> None:
    assert sees_pictures(shown) is sees
