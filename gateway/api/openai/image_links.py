"""Images of which a message has the address only: fetched by a plugin, or refused.

Nothing is fetched before it is clear that the caller may make this call.
"""

from collections.abc import Iterator, Mapping, Sequence

from engines.protocol import Image
from gateway import pipeline
from gateway.api.openai.messages import ImagePart, UserMessage, WireMessage
from gateway.call import Call
from gateway.errors import BadRequest
from gateway.gateway import Gateway

MAX_LINKS = 16
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


async def linked_images(
    gateway: Gateway, call: Call, model: str, messages: Sequence[WireMessage]
) -> Mapping[str, Image]:
    """What could be fetched, by address. Raises `BadRequest`, `Forbidden`, `ModelUnknown`."""
    urls = dict.fromkeys(_links_in(messages))
    if not urls:
        return {}
    if len(urls) > MAX_LINKS:
        raise BadRequest(
            f"messages have {len(urls)} images to fetch; at most {MAX_LINKS}", param="messages"
        )
    serving = call.serving or gateway
    await pipeline.authorize(serving, call, model)
    images: dict[str, Image] = {}
    for url in urls:
        data = await serving.hooks.fetch_image(call, url)
        if data is not None:
            images[url] = Image(data=data, media_type=_media_type(data))
    return images


def _links_in(messages: Sequence[WireMessage]) -> Iterator[str]:
    for message in messages:
        if isinstance(message, UserMessage) and not isinstance(message.content, str):
            for part in message.content:
                if isinstance(part, ImagePart) and part.image_url.url.startswith(
                    ("https://", "http://")
                ):
                    yield part.image_url.url


def _media_type(data: bytes) -> str:
    # By what it is: a server may call anything an image.
    for beginning, media_type in _BEGINNINGS:
        if data.startswith(beginning):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise BadRequest("a fetched image is no PNG, JPEG, WebP or GIF", param="messages")
