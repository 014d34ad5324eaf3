import pytest

from gateway.bench.client_limit import measure_client


async def test_the_client_is_measured_against_a_server_that_computes_nothing() -> None:
    limit = await measure_client(4)

    assert limit.num_callers == 4
    # What a piece costs is microseconds; a second would be a mistake in the arithmetic.
    assert 1e-7 < limit.seconds_per_piece < 1e-2
    assert limit.pieces_per_second == pytest.approx(1 / limit.seconds_per_piece)
    assert limit.first_output.p50 > 0
