"""The sandbox warehouse over HTTP."""

from typing import Any
from urllib.parse import quote

import httpx

from adapters.http import ask
from adapters.warehouse.port import ReturnNotice, StopOrder
from domain.effects import EffectState, Outcome
from domain.errors import Rejected


class SandboxWarehouse:
    """`client` has the sandbox's base URL."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def expect_return(self, notice: ReturnNotice) -> Outcome:
        body = notice.model_dump(include={"order_id", "merchant", "lines"})
        answer = await self._say("PUT", f"/warehouse/returns/{quote(notice.rma, safe=':')}", json=body)
        if isinstance(answer, Outcome):
            return answer
        address = answer.get("address", {})
        where = " ".join(str(address[part]) for part in ("line", "name", "phone") if part in address)
        return Outcome(state=EffectState.succeeded, reference=str(answer.get("rma", notice.rma)), detail=where)

    async def cancel_return(self, rma: str) -> Outcome:
        answer = await self._say("DELETE", f"/warehouse/returns/{quote(rma, safe=':')}")
        if isinstance(answer, Outcome) and answer.cause != "not_found":  # what it never heard of need not be cancelled
            return answer
        return Outcome(state=EffectState.succeeded, reference=rma)

    async def stop_shipment(self, stop: StopOrder) -> Outcome:
        body = stop.model_dump(include={"case_id"}) | {
            "lines": [line.model_dump(include={"line_id", "quantity"}) for line in stop.lines]
        }
        answer = await self._say("PUT", f"/warehouse/stops/{quote(stop.order_key, safe=':')}", json=body)
        if isinstance(answer, Outcome):
            return answer
        if answer.get("stopped") is True:
            return Outcome(state=EffectState.succeeded)
        reason = str(answer.get("reason", "refused"))
        return Outcome(state=EffectState.declined, cause="too_late", detail=f"the warehouse says: {reason}")

    async def _say(self, method: str, path: str, **options: Any) -> dict[str, Any] | Outcome:
        try:
            body = (await ask(self._client, method, path, **options)).json()
        except Rejected as error:
            return Outcome(state=EffectState.declined, cause=error.cause, detail=error.message)
        return body if isinstance(body, dict) else {}
