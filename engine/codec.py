"""Encryption of everything that workflows and activities are given, return or fail with.

The Temporal server and its console see only names, ids, search attributes and times. Whoever may read a case's payloads
holds one of the keys; losing them all makes every open case unreadable, so the key file belongs into the backup.
"""

import base64
import binascii
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec

from domain.errors import Invariant, NotFound, Rejected
from settings import Settings

ENCODING = b"binary/encrypted"
KEY_BYTES = 32
NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True, repr=False)
class Keyring:
    """The payload keys by id: the first one encrypts, all of them decrypt. To rotate, put a new key in front."""

    keys: dict[str, bytes]

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Read `id:base64,id:base64`; a bad entry is `Rejected` by its position, for what stands there may be a key."""
        keys: dict[str, bytes] = {}
        for position, entry in enumerate(text.strip().split(","), start=1):
            key_id, _, encoded = entry.strip().partition(":")
            key = _decoded(encoded)
            if not _KEY_ID.fullmatch(key_id) or key is None:
                raise Rejected(f"key {position} is not an id, a colon and {KEY_BYTES} bytes in base64", field="payload_keys")
            if key_id in keys:
                raise Rejected(f"key {position} has the id of an earlier one", field="payload_keys")
            keys[key_id] = key
        return cls(keys)

    @classmethod
    def load(cls, settings: Settings) -> "Keyring":
        """The keys of the settings, else those of the key file, which the first use makes."""
        if text := settings.payload_keys.get_secret_value():
            return cls.parse(text)
        path = settings.data_dir / "payload.keys"
        if not path.exists():
            _create(path)
        return cls.parse(path.read_text("ascii"))

    @property
    def first(self) -> str:
        """The id of the key that encrypts."""
        return next(iter(self.keys))

    def __getitem__(self, key_id: str) -> bytes:
        try:
            return self.keys[key_id]
        except KeyError:
            raise NotFound(f"no payload key {key_id!r}: the case was written with a key we do not hold") from None

    def __repr__(self) -> str:
        return f"Keyring({', '.join(f'{key_id}:***' for key_id in self.keys)})"


class EncryptionCodec(PayloadCodec):
    """AES-256-GCM around each payload, with the key's id beside it; payloads of another encoding pass through."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._decrypted(p) if p.metadata.get("encoding") == ENCODING else p for p in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        key_id = self._keyring.first
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self._keyring[key_id]).encrypt(nonce, payload.SerializeToString(), key_id.encode())
        return Payload(metadata={"encoding": ENCODING, "encryption-key-id": key_id.encode()}, data=nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        key_id = payload.metadata["encryption-key-id"].decode()
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            plain = AESGCM(self._keyring[key_id]).decrypt(nonce, sealed, key_id.encode())
        except (InvalidTag, ValueError):
            raise Invariant(f"a payload does not open with payload key {key_id!r}: altered, or another key") from None
        return Payload.FromString(plain)


def data_converter(keyring: Keyring) -> DataConverter:
    """Pydantic models to JSON, encrypted; messages and stacks of failures too. Every client and `Replayer` needs it."""
    return DataConverter(
        payload_converter_class=PydanticPayloadConverter,
        payload_codec=EncryptionCodec(keyring),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


def _decoded(encoded: str) -> bytes | None:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def _create(path: Path) -> None:
    """Write a fresh key, readable by its owner alone, unless another process is first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix="payload.keys.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"k-{secrets.token_hex(4)}:{key}\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all and never replaces: of two processes that start at once, one key wins.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()
