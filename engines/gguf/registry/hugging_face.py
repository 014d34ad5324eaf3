"""Files of a Hugging Face repository: which one a name means, and where it is.

`hf.co/ORG/REPO:QUANT` is the GGUF file whose name says QUANT; a whole file name
without `.gguf` will do as well. What the hub says of a file (its size, and the
SHA-256 of everything large) is what the download must be.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from yarl import URL

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.files.digests import Digest
from engines.gguf.files.hugging_face_cache import quantization_of
from engines.gguf.files.names import DEFAULT_TAG, ModelName
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.web import Asked, Refused, Web, checked_url, explained

HOSTS = ("hf.co", "huggingface.co")
# Small files beside the weights that say how to use them, as Ollama reads them.
EXTRAS = ("template", "system", "params")
_MAX_LISTING_BYTES = 32 * 1024 * 1024
_MAX_EXTRA_BYTES = 1024 * 1024
_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")  # they are small, and lose much by being smaller
_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0", "F16", "BF16")


class HubFile(Struct, frozen=True):
    """A file of a repository, whose bytes are known by their digest."""

    path: str
    size_bytes: int
    digest: Digest


class _Large(Struct, frozen=True):
    sha256: str
    size: int


class _Sibling(Struct, frozen=True):
    rfilename: str
    size: int | None = None
    lfs: _Large | None = None


class _Listing(Struct, frozen=True):
    sha: str = "main"
    siblings: list[_Sibling] = []


class HuggingFace:
    """One repository; `HF_ENDPOINT` and `HF_TOKEN` are honoured."""

    def __init__(self, web: Web, name: ModelName, credentials: Credentials) -> None:
        self._web = web
        self._name = name
        self._repository = f"{name.namespace}/{name.model}"
        self._base = checked_url(credentials.hugging_face_url)
        self._authorization = credentials.of_hugging_face()
        self._commit = "main"
        self._siblings: list[_Sibling] = []

    async def list(self) -> None:
        """Read which files there are, at one commit. Raises any `EngineError`."""
        url = self._at("api", "models", *self._repository.split("/")).with_query(blobs="true")
        try:
            content, _ = await self._web.small(
                Asked(url=url, credentials=self._authorization), max_bytes=_MAX_LISTING_BYTES
            )
            listing = msgspec.json.decode(content, type=_Listing)
        except Refused as error:
            raise explained(error, self._name.display, str(self._base.host)) from None
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Unavailable(f"{self._base.host} lists no files: {error}") from None
        self._commit, self._siblings = listing.sha, listing.siblings

    def weights(self) -> HubFile:
        """The file that the name means. Raises `ModelNotFound` that says which there are."""
        files = [sibling for sibling in self._siblings if _is_weights(sibling.rfilename)]
        by_tag: dict[str, _Sibling] = {}
        for sibling in files:
            stem = sibling.rfilename.rpartition("/")[2][: -len(".gguf")]
            by_tag.setdefault(stem.lower(), sibling)
            by_tag.setdefault((quantization_of(sibling.rfilename) or stem).lower(), sibling)
        found = by_tag.get(self._name.tag.lower())
        if found is None and self._name.tag == DEFAULT_TAG:
            preferred = (by_tag.get(tag.lower()) for tag in _PREFERRED)
            found = next((sibling for sibling in preferred if sibling), files[0] if files else None)
        if found is None:
            raise self._no_such_file(files)
        if "-of-" in found.rfilename and found.rfilename.lower()[:-5].rpartition("-")[2].isdigit():
            raise RequestRefused(
                f"{found.rfilename!r:.200} is one of several parts, which cannot be pulled: join "
                "them with llama-gguf-split and use the one file",
                param="model",
            )
        return self._checked(found)

    def projector(self) -> HubFile | None:
        """The file that lets the model see pictures, if the repository has one."""
        files = [sibling for sibling in self._siblings if _is_projector(sibling.rfilename)]
        by_tag = {quantization_of(sibling.rfilename): sibling for sibling in reversed(files)}
        found = next((by_tag[tag] for tag in _PROJECTORS if tag in by_tag), None)
        found = found or (files[0] if files else None)
        return self._checked(found) if found is not None else None

    async def extras(self) -> Mapping[str, bytes]:
        """The content of those of `EXTRAS` that the repository has."""
        names = {sibling.rfilename for sibling in self._siblings}
        found: dict[str, bytes] = {}
        for name in EXTRAS:
            if name in names:
                asked = Asked(url=self.url_of(name), credentials=self._authorization)
                try:
                    found[name], _ = await self._web.small(asked, max_bytes=_MAX_EXTRA_BYTES)
                except Refused as error:
                    raise Unavailable(f"file {name!r} cannot be had: {error}") from None
        return found

    def asked(self, file: HubFile, headers: Mapping[str, str]) -> Asked:
        """The request for a file, or the range of it that `headers` name."""
        return Asked(url=self.url_of(file.path), headers=headers, credentials=self._authorization)

    def url_of(self, path: str) -> URL:
        """Where a file of the listed commit is."""
        return self._at(*self._repository.split("/"), "resolve", self._commit, *path.split("/"))

    def _at(self, *segments: str) -> URL:
        if any(segment in ("", ".", "..") for segment in segments):
            raise Unavailable(f"{self._base.host} lists a file with an impossible name")
        return self._base.joinpath(*segments)

    def _checked(self, sibling: _Sibling) -> HubFile:
        large = sibling.lfs
        if large is None or len(large.sha256) != 64 or set(large.sha256) - set("0123456789abcdef"):
            raise Unavailable(
                f"{self._base.host} does not say what {sibling.rfilename!r:.200} must be: it "
                "gives no SHA-256 for it"
            )
        return HubFile(sibling.rfilename, large.size, Digest(large.sha256))

    def _no_such_file(self, files: Sequence[_Sibling]) -> ModelNotFound:
        tags = sorted({quantization_of(file.rfilename) or file.rfilename for file in files})
        there_are = f" (there are: {', '.join(tags[:40])})" if tags else ", and no GGUF file at all"
        return ModelNotFound(
            self._name.display,
            f"{self._repository} at {self._base.host} has no GGUF file for the tag "
            f"{self._name.tag!r}{there_are}",
        )


def _is_weights(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    # A projector is for pictures, an importance matrix for quantizing.
    return name.endswith(".gguf") and not name.startswith(("mmproj", "imatrix"))


def _is_projector(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.endswith(".gguf") and name.startswith("mmproj")
