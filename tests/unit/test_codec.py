"""Payloads are readable with the right key alone, and a bad key never shows itself."""

import base64
import multiprocessing
import stat
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr
from temporalio.api.common.v1 import Payload

from domain.errors import Invariant, NotFound, Rejected
from engine.codec import EncryptionCodec, Keyring, data_converter
from settings import Settings

OLD = base64.b64encode(b"o" * 32).decode()
NEW = base64.b64encode(b"n" * 32).decode()
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"13800001234"')


class Request(BaseModel):
    phone: str
    amount: int


async def encrypted(keys: str) -> Payload:
    (payload,) = await EncryptionCodec(Keyring.parse(keys)).encode([PLAIN])
    return payload


async def decrypted(keys: str, payload: Payload) -> Payload:
    (plain,) = await EncryptionCodec(Keyring.parse(keys)).decode([payload])
    return plain


async def test_a_model_comes_back_from_the_converter_and_cannot_be_read_on_the_way() -> None:
    converter = data_converter(Keyring.parse(f"k1:{OLD}"))
    payloads = await converter.encode([Request(phone="13800001234", amount=5)])
    assert b"13800001234" not in payloads[0].SerializeToString()
    assert await converter.decode(payloads, [Request]) == [Request(phone="13800001234", amount=5)]


async def test_the_same_payload_is_never_encrypted_to_the_same_bytes() -> None:
    assert (await encrypted(f"k1:{OLD}")).data != (await encrypted(f"k1:{OLD}")).data


async def test_after_rotation_old_payloads_are_read_and_new_ones_use_the_new_key() -> None:
    rotated = f"k2:{NEW},k1:{OLD}"
    assert await decrypted(rotated, await encrypted(f"k1:{OLD}")) == PLAIN
    written = await encrypted(rotated)
    assert written.metadata["encryption-key-id"] == b"k2"
    assert await decrypted(f"k2:{NEW}", written) == PLAIN


async def test_an_unknown_key_is_named() -> None:
    with pytest.raises(NotFound, match="no payload key 'k1'"):
        await decrypted(f"k2:{NEW}", await encrypted(f"k1:{OLD}"))


@pytest.mark.parametrize("position", [0, 12, -1], ids=["nonce", "text", "tag"])
async def test_an_altered_payload_is_refused(position: int) -> None:
    payload = await encrypted(f"k1:{OLD}")
    altered = bytearray(payload.data)
    altered[position] ^= 1
    with pytest.raises(Invariant, match="'k1'"):
        await decrypted(f"k1:{OLD}", Payload(metadata=payload.metadata, data=bytes(altered)))


async def test_a_payload_moved_to_another_key_id_or_cut_short_is_refused() -> None:
    payload = await encrypted(f"k1:{OLD}")
    moved = Payload(metadata={**payload.metadata, "encryption-key-id": b"k2"}, data=payload.data)
    with pytest.raises(Invariant):
        await decrypted(f"k2:{OLD},k1:{OLD}", moved)
    with pytest.raises(Invariant):
        await decrypted(f"k1:{OLD}", Payload(metadata=payload.metadata, data=payload.data[:5]))


async def test_a_payload_of_another_encoding_passes_through() -> None:
    assert await decrypted(f"k1:{OLD}", PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("text", "position"),
    [
        (OLD, 1),
        (f"{OLD}:k1", 1),
        (f"k1:{OLD},k2:{NEW[:20]}", 2),
        (f"k1:{OLD},k2:{NEW}extra", 2),
        (f"k1:{OLD},k1:{NEW}", 2),
        (f"k1:{OLD},", 2),
        (f"k 1:{OLD}", 1),
        ("", 1),
    ],
)
def test_a_bad_entry_is_named_by_its_position_and_its_text_is_not_shown(text: str, position: int) -> None:
    with pytest.raises(Rejected, match=f"key {position} ") as refused:
        Keyring.parse(text)
    assert refused.value.field == "payload_keys"
    assert not any(part in str(refused.value) for part in (OLD[:8], NEW[:8]))
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_keyring_shows_its_ids_and_no_key() -> None:
    shown = repr(Keyring.parse(f"k1:{OLD},k2:{NEW}"))
    assert shown == "Keyring(k1:***, k2:***)"


def test_the_settings_come_before_the_key_file(tmp_path: Path) -> None:
    keyring = Keyring.load(Settings(data_dir=tmp_path, payload_keys=SecretStr(f"k1:{OLD}")))
    assert keyring.first == "k1"
    assert list(tmp_path.iterdir()) == []


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    first = Keyring.load(settings)
    assert Keyring.load(settings) == first
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["payload.keys"]
    assert stat.S_IMODE((tmp_path / "data" / "payload.keys").stat().st_mode) == 0o600


def test_processes_that_start_at_once_end_with_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        keyrings = pool.map(Keyring.load, [Settings(data_dir=tmp_path / str(n // 8)) for n in range(160)], chunksize=1)
    assert len({tuple(keyring.keys.items()) for keyring in keyrings}) == 20
    assert [path.name for path in tmp_path.glob("*/*")] == ["payload.keys"] * 20
