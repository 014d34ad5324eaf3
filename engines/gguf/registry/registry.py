"""One model's repository at one registry, as OCI's distribution specification has it."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from yarl import URL

from engines.errors import Unavailable
from engines.gguf.files.digests import Digest, DigestInvalid, digest_of, parse_digest
from engines.gguf.files.manifests import (
    MANIFEST_TYPE,
    MAX_MANIFEST_BYTES,
    Layer,
    Manifest,
    read_manifest,
)
from engines.gguf.files.names import ModelName
from engines.gguf.registry.authorization import Authorization
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.web import Asked, Refused, Web, checked_url, explained

_OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_MAX_ANSWER_BYTES = 64 * 1024
# A piece does not go where the upload is now, or the upload is no more.
_LOST = frozenset({400, 404, 416})


class UploadLost(Exception):
    """The registry does not go on with an upload.

    That happens when a piece arrived and its answer did not: sent again, it has no place."""


class Registry:
    """Lives as long as its `Web`; remembers the token that it was given."""

    def __init__(self, web: Web, name: ModelName, scheme: str, credentials: Credentials) -> None:
        self._web = web
        self._name = name
        self.url = checked_url(f"{scheme}://{name.host}")
        self._authorization = Authorization(web, self.url, credentials.of_registry(self.url))

    async def manifest(self) -> Manifest:
        """The manifest of the name, checked. Raises any `EngineError`."""
        asked = Asked(
            url=self._at(f"manifests/{self._name.tag}"),
            headers={"Accept": f"{MANIFEST_TYPE}, {_OCI_MANIFEST_TYPE}"},
        )
        raw, headers = await self._small(asked, max_bytes=MAX_MANIFEST_BYTES)
        claimed = headers.get("Docker-Content-Digest")
        if claimed is not None and _digest_or_none(claimed) != digest_of(raw):
            raise Unavailable(
                f"{self._name.host} sent another manifest than it says: its digest is "
                f"{digest_of(raw)}, not {claimed!r:.100}"
            )
        return read_manifest(raw, f"{self._name.display!r} at {self._name.host}")

    @asynccontextmanager
    async def blob(
        self, digest: Digest, headers: Mapping[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """A blob, or the range of it that `headers` ask for. Raises `Broken` and `Refused`."""
        asked = Asked(url=self._at(f"blobs/{digest}"), headers=headers)
        async with self._open(asked) as response:
            yield response

    async def has(self, layer: Layer) -> bool:
        """Whether the registry has this blob already. Raises any `EngineError`."""
        asked = Asked(url=self._at(f"blobs/{layer.digest}"), method="HEAD")
        try:
            await self._authorized(asked, max_bytes=0)
        except Refused as error:
            if error.status == 404:
                return False
            raise self._explained(error) from None
        return True

    async def put_manifest(self, manifest: Manifest) -> None:
        """Let the name stand for a manifest, whose blobs the registry has."""
        asked = Asked(
            url=self._at(f"manifests/{self._name.tag}"),
            method="PUT",
            headers={"Content-Type": MANIFEST_TYPE},
            body=manifest.raw,
        )
        await self._small(asked)

    async def begin_upload(self) -> URL:
        """Where the first piece of a blob goes."""
        _, headers = await self._small(
            Asked(url=self._at("blobs/uploads/"), method="POST", body=b"")
        )
        return self._place(headers)

    async def upload(self, place: URL, start: int, piece: bytes) -> URL:
        """Send a piece of a blob; returns where the next one goes.

        Raises `UploadLost`, or any `EngineError`."""
        asked = Asked(
            url=place,
            method="PATCH",
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{start}-{start + len(piece) - 1}",
            },
            body=piece,
        )
        try:
            _, headers = await self._authorized(asked, max_bytes=_MAX_ANSWER_BYTES)
        except Refused as error:
            if error.status in _LOST:
                raise UploadLost(
                    f"{self._name.host} does not go on with an upload: {error}"
                ) from None
            raise self._explained(error) from None
        return self._place(headers)

    async def end_upload(self, place: URL, digest: Digest) -> None:
        """Say that all pieces were sent, and what they add up to."""
        asked = Asked(url=place.update_query(digest=str(digest)), method="PUT", body=b"")
        await self._small(asked)

    def _at(self, path: str) -> URL:
        return self.url / f"v2/{self._name.namespace}/{self._name.model}/{path}"

    def _place(self, headers: Mapping[str, str]) -> URL:
        try:
            place = checked_url(str(self.url.join(URL(headers.get("Location", "")))))
        except ValueError:
            place = None
        # What we send there carries our token, and is the model.
        if place is None or place.origin() != self.url.origin():
            raise Unavailable(f"{self._name.host} wants the upload at another host")
        return place

    async def _small(
        self, asked: Asked, *, max_bytes: int = _MAX_ANSWER_BYTES
    ) -> tuple[bytes, Mapping[str, str]]:
        try:
            return await self._authorized(asked, max_bytes=max_bytes)
        except Refused as error:
            raise self._explained(error) from None

    async def _authorized(self, asked: Asked, *, max_bytes: int) -> tuple[bytes, Mapping[str, str]]:
        try:
            return await self._web.small(self._with_header(asked), max_bytes=max_bytes)
        except Refused as error:
            if error.status != 401 or await self._authorization.renew(error) is None:
                raise
        return await self._web.small(self._with_header(asked), max_bytes=max_bytes)

    @asynccontextmanager
    async def _open(self, asked: Asked) -> AsyncGenerator[aiohttp.ClientResponse]:
        header = self._authorization.header
        try:
            async with self._web.open(self._with_header(asked)) as response:
                yield response
                return
        except Refused as error:
            if error.status != 401:
                raise
            # Another part may have renewed it since.
            is_renewed = self._authorization.header != header
            if not is_renewed and await self._authorization.renew(error) is None:
                raise
        async with self._web.open(self._with_header(asked)) as response:
            yield response

    def _with_header(self, asked: Asked) -> Asked:
        return msgspec.structs.replace(asked, credentials=self._authorization.header)

    def _explained(self, error: Refused) -> Exception:
        return explained(error, self._name.display, self._name.host)


def _digest_or_none(text: str) -> Digest | None:
    try:
        return parse_digest(text)
    except DigestInvalid:
        return None
