import msgspec
import pytest

from engines.errors import Unavailable
from engines.protocol import EmbedRequest
from engines.remote.embeddings import read_vectors, spoken_embedding


def test_inputs_are_put_into_words() -> None:
    request = EmbedRequest(id="r", model="m", inputs=["a", [1, 2]], dimensions=3)

    assert msgspec.json.decode(spoken_embedding(request)) == {
        "model": "m", "input": ["a", [1, 2]], "encoding_format": "float", "dimensions": 3,
    }  # fmt: skip


def test_vectors_without_an_index_are_in_order() -> None:
    body = b'{"data":[{"embedding":[1.0]},{"embedding":[2.0]}]}'

    assert [list(vector) for vector in read_vectors(body, 2)] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b'{"data":[{"embedding":"???"}]}', b'{"data":[{"embedding":"AAA="}]}',
     b'{"data":[{"embedding":null}]}'],
)  # fmt: skip
def test_what_is_no_vector_is_no_answer(body: bytes) -> None:
    with pytest.raises(Unavailable):
        read_vectors(body, 1)
