"""Which of an issuer's published keys may verify a token, and nothing else.

A key is taken only if it can do one thing: verify a signature of an algorithm of its
own type. Shared secrets, encryption keys, keys that came with their private half and
keys too small or too large are left out (RFC 7517, RFC 8725).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, cast

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from msgspec import Struct

log: Any = structlog.get_logger()

MAX_KEYS = 100
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192

# Algorithm -> the key type and curve that it needs (RFC 7518 section 3.1, RFC 9864).
_NEEDS: Mapping[str, tuple[str, str | None]] = {
    **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "Ed25519": ("OKP", "Ed25519"),
}
_PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class KeySetInvalid(ValueError):
    """The document holds no key that could verify a token."""


class PublishedKey(Struct, frozen=True):
    """One key that may verify signatures."""

    kid: str | None
    kind: str
    curve: str | None
    algorithm: str | None  # the only one it may be used with, if it says so
    key: Key

    def may_verify(self, algorithm: str) -> bool:
        """Is it of the algorithm's type and curve, and not meant for another algorithm?"""
        return _NEEDS.get(algorithm) == (self.kind, self.curve) and self.algorithm in (
            None,
            algorithm,
        )


class KeySet(Struct, frozen=True):
    """The keys of one issuer."""

    keys: Sequence[PublishedKey]

    def has(self, kid: str | None) -> bool:
        """Is there a key of this id? A token without one may take any that fits."""
        return kid is None or any(key.kid == kid for key in self.keys)

    def verifying(self, kid: str | None, algorithm: str) -> Sequence[PublishedKey]:
        """The keys that may verify a token with this header.

        Without a `kid` only if a single key fits: trying all would let a token choose.
        """
        fitting = [key for key in self.keys if key.may_verify(algorithm)]
        if kid is None:
            return fitting if len(fitting) == 1 else []
        return [key for key in fitting if key.kid == kid]


def read_key_set(document: Mapping[str, Any]) -> KeySet:
    """The keys of a JWKS document that can be used. Raises `KeySetInvalid` if none can."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeySetInvalid('"keys" is not a list')
    listed = cast(list[Any], entries)
    if len(listed) > MAX_KEYS:
        raise KeySetInvalid(f"over {MAX_KEYS} keys")
    keys = [key for entry in listed if (key := _key_of(entry)) is not None]
    if not keys:
        raise KeySetInvalid("none of its keys can verify a token")
    return KeySet(keys)


def _key_of(entry: Any) -> PublishedKey | None:
    if not isinstance(entry, dict):
        return None
    jwk = cast(dict[str, Any], entry)
    kind = jwk.get("kty")
    kid, algorithm, curve = jwk.get("kid"), jwk.get("alg"), jwk.get("crv")
    if kind not in _PARTS or not _is_for_signatures(jwk):
        return None
    if "d" in jwk:
        log.error("issuer_publishes_private_key", kid=str(kid)[:64])
        return None
    parts = {part: jwk.get(part) for part in _PARTS[kind]}
    if not all(isinstance(part, str) for part in (*parts.values(), kid or "", algorithm or "")):
        return None
    try:
        if kind == "RSA" and not _is_sound_rsa(parts["n"] or "", parts["e"] or ""):
            return None
        key = _imported(kind, {"kty": kind, **parts})
    except (JoseError, ValueError, TypeError):
        return None
    return PublishedKey(kid, kind, curve if kind != "RSA" else None, algorithm, key)


def _is_for_signatures(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    )


def _is_sound_rsa(modulus: str, exponent: str) -> bool:
    bits, public = _number(modulus).bit_length(), _number(exponent)
    return MIN_RSA_BITS <= bits <= MAX_RSA_BITS and 3 <= public < 2**32 and public % 2 == 1


def _number(text: str) -> int:
    if len(text) > MAX_RSA_BITS // 4:
        raise ValueError("too long")
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _imported(kind: str, jwk: Mapping[str, Any]) -> Key:
    importers: Mapping[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    return cast(Key, importers[kind].import_key(dict(jwk)))
