"""Who may tell us something: Standard Webhooks by source, and what is not signed only where the settings say so."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from db.models import InboxState
from db.session import Database
from tests.desk import now, order_events, request_event
from tests.integration.kit import BATCH, ONE, Json, inbox, intake_on

SHOP, WAREHOUSE, OTHER = ("whsec_" + base64.b64encode(name.encode() * 4).decode() for name in ("shop", "store", "other"))
SECRETS = {"/shop": SecretStr(SHOP), "/warehouse": SecretStr(WAREHOUSE)}


@pytest.fixture
async def intake(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    """An intake that takes only what is signed."""
    async with intake_on(db, allow_unsigned=False, webhook_secrets=SECRETS) as client:
        yield client


def signed(body: str, *secrets: str, at: datetime | None = None) -> dict[str, str]:
    """The headers of a body signed with each of the secrets."""
    at = at or now()
    signatures = " ".join(Webhook(secret).sign("m1", at, body) for secret in secrets)
    stamp = {"webhook-id": "m1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signatures}
    return {"content-type": ONE} | stamp


async def post(intake: httpx.AsyncClient, body: str, headers: dict[str, str]) -> tuple[int, Any]:
    answer = await intake.post("/events", content=body, headers=headers)
    return answer.status_code, answer.json()


def paid(source: str = "/shop", order_id: str = "O1") -> Json:
    return order_events(order_id)[0] | {"source": source}


async def test_an_event_signed_with_the_secret_of_its_source_is_taken(db: Database, intake: httpx.AsyncClient) -> None:
    body = json.dumps(paid())

    status, answer = await post(intake, body, signed(body, SHOP))

    assert (status, answer["status"]) == (202, "accepted")
    [row] = await inbox(db)
    assert (row.source, row.state) == ("/shop", InboxState.processed)


async def test_the_old_and_the_new_secret_may_both_sign_while_a_secret_is_changed(intake: httpx.AsyncClient) -> None:
    body = json.dumps(paid())

    assert (await post(intake, body, signed(body, OTHER, SHOP)))[0] == 202


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "no headers": ({"secrets": (), "drop": ("webhook-id", "webhook-timestamp", "webhook-signature")}, "Missing required"),
    "no timestamp": ({"secrets": (SHOP,), "drop": ("webhook-timestamp",)}, "Missing required"),
    "another's secret": ({"secrets": (WAREHOUSE,)}, "No matching signature"),
    "a secret that nobody knows": ({"secrets": (OTHER,)}, "No matching signature"),
    "an old timestamp": ({"secrets": (SHOP,), "at": timedelta(minutes=-6)}, "too old"),
    "a timestamp from the future": ({"secrets": (SHOP,), "at": timedelta(minutes=6)}, "too new"),
    "a timestamp that is none": ({"secrets": (SHOP,), "webhook-timestamp": "today"}, "Invalid Signature Headers"),
    "another body": ({"secrets": (SHOP,), "signs": "{}"}, "No matching signature"),
    "another message": ({"secrets": (SHOP,), "webhook-id": "m2"}, "No matching signature"),
    "a signature that is none": ({"secrets": (SHOP,), "webhook-signature": "v1"}, ""),
    "a signature in another alphabet": ({"secrets": (SHOP,), "webhook-signature": "v1,===="}, ""),
}


@pytest.mark.parametrize("forged", FORGED)
async def test_what_is_not_signed_by_its_source_is_refused_and_leaves_no_trace(
    db: Database, intake: httpx.AsyncClient, forged: str
) -> None:
    how, reason = FORGED[forged]
    body = json.dumps(paid())
    headers = signed(how.get("signs", body), *how["secrets"], at=now() + how.get("at", timedelta()))
    headers |= {name: value for name, value in how.items() if name.startswith("webhook-")}

    sent = {name: value for name, value in headers.items() if name not in how.get("drop", ())}
    status, problem = await post(intake, body, sent)

    assert (status, problem["field"]) == (401, "webhook-signature")
    assert problem["reason"].startswith("source '/shop': ")
    assert reason in problem["reason"]
    assert await inbox(db) == []
    assert (await post(intake, body, signed(body, SHOP)))[0] == 202


async def test_a_source_without_a_secret_is_refused_by_name(db: Database, intake: httpx.AsyncClient) -> None:
    body = json.dumps(paid("/stranger"))

    status, problem = await post(intake, body, signed(body, SHOP))

    assert (status, problem["reason"]) == (401, "no secret is known for source '/stranger'")
    assert await inbox(db) == []


@pytest.mark.parametrize(
    ("secrets", "status"), [((SHOP,), 401), ((WAREHOUSE,), 401), ((SHOP, WAREHOUSE), 207), ((SHOP, OTHER), 401)]
)
async def test_a_batch_of_two_sources_is_taken_only_if_both_signed_it(
    db: Database, intake: httpx.AsyncClient, secrets: tuple[str, ...], status: int
) -> None:
    body = json.dumps([paid("/shop", "O1"), paid("/warehouse", "O2")])

    told, _ = await post(intake, body, signed(body, *secrets) | {"content-type": BATCH})

    assert told == status
    assert len(await inbox(db)) == (2 if status == 207 else 0)


async def test_a_broken_body_is_kept_only_from_someone_who_can_sign(db: Database, intake: httpx.AsyncClient) -> None:
    broken = json.dumps(paid())[:-1]

    assert (await post(intake, broken, {"content-type": ONE}))[0] == 401
    assert (await post(intake, broken, signed(broken, OTHER)))[0] == 401
    assert await inbox(db) == []
    assert (await post(intake, broken, signed(broken, WAREHOUSE)))[0] == 422
    [row] = await inbox(db)
    assert (row.state, row.body) == (InboxState.rejected, broken)


async def test_unsigned_events_are_taken_where_the_settings_allow_them_but_a_wrong_signature_never(db: Database) -> None:
    body = json.dumps(paid())
    async with intake_on(db, allow_unsigned=True, webhook_secrets=SECRETS) as intake:
        assert (await post(intake, body, signed(body, OTHER)))[0] == 401
        assert await inbox(db) == []
        assert (await post(intake, body, {"content-type": ONE}))[0] == 202
        stranger = json.dumps(request_event("O1", "R1") | {"source": "/stranger"})
        assert (await post(intake, stranger, signed(stranger, OTHER)))[0] == 202
