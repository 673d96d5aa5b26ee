"""What the counterparts tell us: CloudEvents in structured JSON, signed by Standard Webhooks."""

import json
from datetime import UTC, datetime
from typing import Literal

import httpx
from pydantic import BaseModel
from standardwebhooks import Webhook as Signer

from domain.events import EventData

Source = Literal["/sandbox/provider", "/sandbox/warehouse"]


class Webhook(BaseModel):
    """One event as it goes out; the same bytes at every attempt."""

    event_id: str
    body: str


def webhook(event_id: str, source: Source, data: EventData) -> Webhook:
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": data.type_name,
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": data.model_dump(mode="json", exclude_none=True),
    }
    return Webhook(event_id=event_id, body=json.dumps(event, ensure_ascii=False))


class Intake:
    """The address that our webhooks go to."""

    def __init__(self, url: str, secret: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._signer = Signer(secret)
        self._http = http

    async def post(self, payload: str) -> None:
        """Delivers a Webhook given as JSON; httpx.HTTPError unless it was answered 2xx."""
        webhook = Webhook.model_validate_json(payload)
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/cloudevents+json",
            "webhook-id": webhook.event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(webhook.event_id, now, webhook.body),
        }
        answer = await self._http.post(self._url, content=webhook.body.encode(), headers=headers)
        answer.raise_for_status()
