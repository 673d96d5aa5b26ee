"""The warehouse over HTTP: returns it is to expect, and orders it is to stop before they leave."""

from typing import Annotated, NamedTuple

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.routing import Route

from domain.events import Key, Quantity, Ref, Slug
from sandbox.config import SandboxConfig
from sandbox.faults import Fault, Faults
from sandbox.jobs import Jobs
from sandbox.parcels import AnnouncedLine, Parcels, Plan
from sandbox.refusals import Refused
from sandbox.store import Store

KEY = TypeAdapter[str](Key)
ADDRESS = {"name": "售后退货组", "phone": "0571-88880000", "line": "浙江省杭州市余杭区文一西路 969 号 3 号退货仓"}


class ReturnOrder(BaseModel):
    """What the warehouse is told to expect under an RMA."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    order_id: Ref
    merchant: Slug
    lines: Annotated[list[AnnouncedLine], Field(min_length=1, max_length=500)]


class _Return(NamedTuple):
    order: ReturnOrder
    state: str
    """expected, received or cancelled."""


class StopLine(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    line_id: Ref
    quantity: Quantity


class StopOrder(BaseModel):
    """What the warehouse is asked not to send."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    case_id: Key
    lines: Annotated[list[StopLine], Field(min_length=1, max_length=500)]


class Warehouse:
    def __init__(self, config: SandboxConfig, store: Store, faults: Faults, jobs: Jobs) -> None:
        self._store = store
        self._faults = faults
        self._parcels = Parcels(store, jobs, config.auto_receive_seconds)

    def routes(self) -> list[Route]:
        return [
            Route("/warehouse/returns/{rma:path}", self._announce, methods=["PUT"]),
            Route("/warehouse/returns/{rma:path}", self._show, methods=["GET"]),
            Route("/warehouse/returns/{rma:path}", self._cancel, methods=["DELETE"]),
            Route("/warehouse/stops/{order_ref}", self._stop, methods=["PUT"]),
            Route("/warehouse/plans", self._plan, methods=["POST"]),
        ]

    async def _announce(self, request: Request) -> Response:
        rma = KEY.validate_python(request.path_params["rma"])
        order = ReturnOrder.model_validate_json(await request.body())
        await self._suffer(rma)
        if not self._find(rma):
            self._refuse_by_fault(rma)
        with self._store.transaction():
            known = self._find(rma)
            if known and known.order != order:
                raise Refused(409, "other_content", f"{rma} was announced with another content")
            if not known:
                self._store.execute("INSERT INTO returns VALUES (?, ?, 'expected')", rma, order.model_dump_json())
                self._parcels.expect(rma, order.lines)
        return JSONResponse({"rma": rma, "state": known.state if known else "expected", "address": ADDRESS})

    async def _show(self, request: Request) -> Response:
        rma = request.path_params["rma"]
        await self._suffer(rma)
        known = self._get(rma)
        received = [line.model_dump(mode="json") for line in self._parcels.received(rma)]
        told = {"rma": rma, "state": known.state, "address": ADDRESS, "received": received}
        return JSONResponse(told | known.order.model_dump(mode="json"))

    async def _cancel(self, request: Request) -> Response:
        rma = request.path_params["rma"]
        await self._suffer(rma)
        with self._store.transaction():
            if self._get(rma).state == "received":
                raise Refused(409, "already_received", f"goods have arrived for {rma}")
            self._store.execute("UPDATE returns SET state = 'cancelled' WHERE rma = ?", rma)
            self._parcels.drop(rma)
        return JSONResponse({"rma": rma, "state": "cancelled"})

    async def _stop(self, request: Request) -> Response:
        order_ref = request.path_params["order_ref"]
        stop = StopOrder.model_validate_json(await request.body())
        await self._suffer(order_ref)
        stopped = self._store.execute(
            "SELECT 1 FROM stops WHERE order_ref = ? AND case_id = ?", order_ref, stop.case_id
        ).fetchone()
        if not stopped:
            self._refuse_by_fault(order_ref)
            if self._faults.take((order_ref,), Fault.stop_too_late):
                return JSONResponse({"stopped": False, "reason": "label_printed"})
            self._store.execute("INSERT INTO stops VALUES (?, ?)", order_ref, stop.case_id)
        return JSONResponse({"stopped": True})

    async def _plan(self, request: Request) -> Response:
        plan = Plan.model_validate_json(await request.body())
        with self._store.transaction():
            known = self._find(plan.rma)
            if not known:
                self._parcels.keep(plan)
            elif known.state != "cancelled":
                self._parcels.replan(plan)
        return JSONResponse(plan.model_dump(mode="json"))

    async def _suffer(self, name: str) -> None:
        await self._faults.delay((name,))
        if self._faults.take((name,), Fault.warehouse_down):
            raise Refused(503, "unavailable")

    def _refuse_by_fault(self, name: str) -> None:
        if self._faults.take((name,), Fault.warehouse_refuse):
            raise Refused(422, "unknown_sku", "the warehouse does not know this SKU")

    def _find(self, rma: str) -> _Return | None:
        row = self._store.execute("SELECT announced, state FROM returns WHERE rma = ?", rma).fetchone()
        return _Return(ReturnOrder.model_validate_json(row["announced"]), row["state"]) if row else None

    def _get(self, rma: str) -> _Return:
        known = self._find(rma)
        if known is None:
            raise Refused(404, "not_found", f"no return under {rma}")
        return known
