"""The sandbox payment provider over HTTP."""

from urllib.parse import quote

import httpx

from adapters.http import ask
from adapters.payments.port import Refund
from domain.effects import EffectState, Outcome
from domain.errors import NotFound, OutcomeUnknown, Rejected

_STATES = {"succeeded": EffectState.succeeded, "pending": EffectState.pending, "failed": EffectState.failed}


class SandboxPayments:
    """`client` has the sandbox's base URL."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def submit(self, refund: Refund) -> Outcome:
        body = refund.model_dump(include={"payment_ref", "captured", "amount", "currency"})
        try:
            answer = await ask(self._client, "POST", "/provider/refunds", json=body, headers={"Idempotency-Key": refund.key})
        except Rejected as error:
            return Outcome(state=EffectState.declined, cause=error.cause, detail=error.message)
        return _outcome(answer)

    async def look_up(self, refund: Refund) -> Outcome:
        try:
            answer = await ask(self._client, "GET", f"/provider/refunds/{quote(refund.key, safe=':')}")
        except Rejected as error:
            if error.cause != "not_found":
                raise NotFound(f"the lookup of {refund.key} was refused: {error}") from error
            return Outcome(state=EffectState.unknown, cause="not_found", detail="the provider does not show this key")
        return _outcome(answer)


def _outcome(answer: httpx.Response) -> Outcome:
    body = answer.json()
    try:
        return Outcome(
            state=_STATES[body["state"]],
            reference=body["refund_id"],
            amount=body["amount"],
            cause=body.get("code") or "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise OutcomeUnknown(f"the provider answered something we cannot read: {error!r}") from error
