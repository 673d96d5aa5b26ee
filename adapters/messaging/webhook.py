"""Messages by webhook, signed as Standard Webhooks: the merchant's chat, SMS or platform gateway takes them from there.
The receiver tells a repeat by its `webhook-id`, which is our effect key."""

import json
from datetime import UTC, datetime

import httpx
from standardwebhooks.webhooks import Webhook

from adapters.http import ask
from adapters.messaging.port import Message
from domain.effects import EffectState, Outcome
from domain.errors import Rejected


class WebhookMessenger:
    """`secret` is a Standard Webhooks secret (`whsec_…`)."""

    needs_address = False

    def __init__(self, client: httpx.AsyncClient, url: str, secret: str) -> None:
        self._client, self._url, self._webhook = client, url, Webhook(secret)

    async def send(self, message: Message) -> Outcome:
        body = json.dumps({"id": message.key, **message.model_dump(exclude={"key", "address"})}, ensure_ascii=False)
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message.key,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message.key, now, body),
        }
        try:
            await ask(self._client, "POST", self._url, content=body.encode(), headers=headers)
        except Rejected as error:
            return Outcome(state=EffectState.declined, cause=error.cause, detail=error.message)
        return Outcome(state=EffectState.succeeded)
