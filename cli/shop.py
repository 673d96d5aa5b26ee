"""A day of Lanhua, a shop for tea, ceramics and clothes on three Chinese platforms: the story that `aftersales demo` plays.

Made up, and the same for the same seed: most cases go straight, about one in ten meets a fault of the payment provider,
and some parcels come late, damaged, in two parts or not at all. `python -m cli.shop` prints the few events of it that are
kept in `examples/events.jsonl`. Amounts are fen.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain, repeat
from random import Random

from pydantic import BaseModel, ConfigDict

from adapters.platforms.online_retail import Envelope
from domain.cases import order_key
from domain.entitlement import asked
from domain.events import (
    AftersaleRequested,
    AftersaleWithdrawn,
    Buyer,
    CaseKind,
    DeadlineChanged,
    Grade,
    OfCase,
    OfOrder,
    OrderDelivered,
    OrderLine,
    OrderPaid,
    OrderShipped,
    ParcelReturning,
    ReceivedLine,
    RequestedLine,
    Tender,
)
from domain.settlement import TenderKind

MERCHANT, CURRENCY = "lanhua", "CNY"
CHANNELS = {"tmall": "TM", "douyin": "DY", "jd": "JD"}
ITEMS = {
    "TEA-LONGJING-250": ("明前龙井 250克", 26_800),
    "TEA-PUER-357": ("古树普洱熟茶饼 357克", 16_800),
    "TEA-TIEGUANYIN-125": ("安溪铁观音 125克", 5_900),
    "TEA-JASMINE-100": ("茉莉花茶 100克", 2_800),
    "CUP-CELADON": ("龙泉青瓷品茗杯", 3_900),
    "POT-ZISHA-200": ("宜兴紫砂壶 200毫升", 69_800),
    "GAIWAN-BLUE": ("景德镇青花盖碗", 12_800),
    "VASE-TENMOKU": ("建盏天目釉花瓶", 89_900),
    "SHIRT-LINEN-M": ("亚麻立领衬衫 M", 19_900),
    "QIPAO-SILK-S": ("桑蚕丝改良旗袍 S", 109_900),
    "SCARF-SILK": ("苏绣真丝方巾", 15_900),
    "SOCKS-COTTON-3": ("纯棉中筒袜 三双", 2_990),
}
NAMES = ("王芳", "李娜", "张伟", "刘洋", "陈静", "杨帆", "赵敏", "黄磊", "周琳", "吴桐", "徐倩", "孙浩", "朱晓", "何平")
ENGLISH_NAMES = ("Emma Clarke", "Oliver Reed")
NOTES = {
    "no_reason": ("不想要了", "I changed my mind"),
    "quality": ("有瑕疵，附照片", "It has a flaw, see the photo"),
    "not_as_described": ("和页面描述不符", "Not as described on the page"),
    "missing": ("少发了一件", "One piece is missing"),
    "late": ("物流太慢，要求补偿", "It takes far too long"),
}


class Fault(BaseModel):
    """An order to the sandbox's `/faults`: what strikes whom, how often and, where it takes time, for how long."""

    model_config = ConfigDict(frozen=True)
    match: str
    fault: str
    times: int = 1
    seconds: float = 0.0


class Delivery(BaseModel):
    """One receipt of the sandbox's warehouse; `repeat` is how often it is confirmed."""

    model_config = ConfigDict(frozen=True)
    after_seconds: float
    lines: list[ReceivedLine]
    final: bool = True
    repeat: int = 1


class Plan(BaseModel):
    """An order to the sandbox's `/warehouse/plans`: what will come for an RMA, and when after it is announced."""

    model_config = ConfigDict(frozen=True)
    rma: str
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True)
class Step:
    """Something to send, `at` seconds after the start."""

    at: float
    what: Envelope | Fault | Plan


@dataclass(frozen=True)
class Script:
    """The steps in the order in which to send them, faults and plans before what they are about."""

    steps: tuple[Step, ...]

    @property
    def events(self) -> list[Envelope]:
        return [step.what for step in self.steps if isinstance(step.what, Envelope)]


class Fate(StrEnum):
    """What becomes of a return."""

    straight = "straight"
    short = "short"
    two_parcels = "two_parcels"
    damaged = "damaged"
    repeated = "repeated"
    late = "late"
    never = "never"
    withdrawn = "withdrawn"


FATES = (
    *(Fate.short, Fate.two_parcels) * 2,
    *(Fate.damaged, Fate.repeated, Fate.withdrawn) * 2,
    *(Fate.late, Fate.never) * 4,
)
PAYMENT_TROUBLE: tuple[tuple[tuple[str, int, float], ...], ...] = (
    (("refuse", 1, 0),),
    (("error", 2, 0),),
    (("rate_limit", 1, 1),),
    (("slow", 1, 2),),
    (("accept_then_drop", 1, 0),),
    (("accept_then_drop", 1, 0), ("lookup_blind", 1, 4)),
    (("settle_later", 1, 6),),
    (("fail_later", 1, 4),),
    (("duplicate_webhook", 1, 0),),
    (("webhook_first", 1, 0),),
    (("no_webhook", 1, 0),),
)
"""(fault, times, seconds) for one case each."""


@dataclass(frozen=True)
class _Order:
    paid: OrderPaid
    shipped_at: datetime | None
    delivered_at: datetime | None

    @property
    def keys(self) -> dict[str, str]:
        return {"merchant": MERCHANT, "channel": self.paid.channel, "order_id": self.paid.order_id}

    def shipped(self, at: datetime) -> OrderShipped:
        return OrderShipped(**self.keys, waybill=f"SF{self.paid.order_id[2:]}", carrier="sf", shipped_at=at)


@dataclass(frozen=True)
class _Case:
    at: float
    order: _Order
    request: AftersaleRequested

    @property
    def reference(self) -> str:
        return self.request.reference

    @property
    def keys(self) -> dict[str, str]:
        return {"merchant": MERCHANT, "channel": self.request.channel, "reference": self.reference}

    @property
    def value(self) -> int:
        return sum(claim.amount for claim in asked(self.request, self.order.paid.lines, "reject"))

    @property
    def units(self) -> int:
        return sum(line.quantity for line in self.request.lines)

    def after(self, seconds: float) -> tuple[float, datetime]:
        """So long after the request: as seconds of the script, and as a time."""
        return self.at + seconds, self.request.requested_at + timedelta(seconds=seconds)


def play(start: datetime, *, n_orders: int = 300, seed: int = 7) -> Script:
    """The day as it unfolds from `start`: orders and what the world will do at once, requests over half a minute, parcels
    after them. Some 43 requests come for 100 orders (of which there must be ten). Same arguments, same script."""
    rng = Random(seed)
    orders = [_order(rng, start, number) for number in range(1, n_orders + 1)]
    unsent = rng.sample([order for order in orders if not order.shipped_at], k=_of(n_orders, 8))
    on_the_way = [order for order in orders if order.shipped_at and not order.delivered_at]
    there = rng.sample([order for order in orders if order.delivered_at], k=_of(n_orders, 10) + _of(n_orders, 20))
    kept, sent_back = there[: _of(n_orders, 10)], there[_of(n_orders, 10) :]
    refunds = [_refund(rng, start, order) for order in (*unsent, *rng.sample(on_the_way, k=_of(n_orders, 4)), *kept)]
    returns = [_return(rng, start, order) for order in sent_back]
    steps = [
        *(step for order in orders for step in _told(order)),
        *_trouble(refunds),
        *(_step(case.at, case.request.requested_at, case.request, case.reference) for case in (*refunds, *returns)),
        *(step for case, fate in _fates(returns) for step in _goods(rng, case, fate)),
        *_second_thoughts(refunds, _of(n_orders, 1)),
        *_strangers(rng, start, _of(n_orders, 1)),
    ]
    return Script(tuple(sorted(steps, key=lambda step: step.at)))


def sample() -> str:
    """`examples/events.jsonl`: the events of a day with ten orders, one JSON object a line."""
    told = play(datetime(2026, 3, 2, 1, 0, tzinfo=UTC), n_orders=10).events
    return "".join(json.dumps(event.as_cloudevent(), ensure_ascii=False) + "\n" for event in told)


def _of(whole: int, percent: int) -> int:
    return -(-whole * percent // 100)


def _order(rng: Random, start: datetime, number: int) -> _Order:
    """Of each twenty orders three are only paid, three are on their way, and the rest arrived one to six days ago."""
    channel, stage = list(CHANNELS)[number % 3], number % 20
    days = 0 if stage < 3 else rng.randint(2, 3) if stage < 6 else rng.randint(4, 8)
    placed_at = start - timedelta(days=days, minutes=rng.randint(20, 600))
    lines = [_line(rng, str(n), sku) for n, sku in enumerate(rng.sample(list(ITEMS), k=rng.choice((1, 1, 2, 2, 3))), 1)]
    due = sum(line.amount for line in lines)
    shipping = 0 if due >= 9_900 else 1_000
    order_id = f"{CHANNELS[channel]}{placed_at:%y%m%d}{number:04d}"
    paid = OrderPaid(
        merchant=MERCHANT,
        channel=channel,
        order_id=order_id,
        currency=CURRENCY,
        placed_at=placed_at,
        buyer=_buyer(rng),
        lines=lines,
        shipping=shipping,
        tenders=_tenders(rng, order_id, due + shipping),
    )
    shipped_at = placed_at + timedelta(days=1) if stage >= 3 else None
    return _Order(paid, shipped_at, placed_at + timedelta(days=rng.randint(2, 3)) if stage >= 6 else None)


def _line(rng: Random, line_id: str, sku: str) -> OrderLine:
    title, price = ITEMS[sku]
    units, percent = rng.choice((1, 1, 1, 2, 3)), rng.choice((100, 100, 95, 88))
    amount, cost = units * price * percent // 100, price * 55 // 100
    return OrderLine(line_id=line_id, sku=sku, title=title, quantity=units, amount=amount, unit_cost=cost)


def _buyer(rng: Random) -> Buyer:
    number = rng.randint(1, 240)
    email = f"buyer{number}@example.com"
    if number % 12:
        return Buyer(buyer_id=f"LH-B{number:04d}", name=NAMES[number % len(NAMES)], email=email)
    return Buyer(buyer_id=f"LH-B{number:04d}", name=ENGLISH_NAMES[number % 24 // 12], email=email, locale="en")


def _tenders(rng: Random, order_id: str, due: int) -> list[Tender]:
    """One order in four is paid by voucher first; the rest comes from a wallet, or one time in five from a card."""
    voucher = rng.choice((1_000, 2_000, 5_000)) if rng.random() < 0.25 else 0
    parts: list[tuple[TenderKind, int]] = [("voucher", voucher)] if 0 < voucher < due else []
    parts.append(("card" if rng.random() < 0.2 else "wallet", due - sum(amount for _, amount in parts)))
    return [
        Tender(tender_id=str(n), kind=kind, provider="sandbox", payment_ref=f"pay-{order_id}-{n}", amount=amount)
        for n, (kind, amount) in enumerate(parts, 1)
    ]


def _told(order: _Order) -> Iterator[Step]:
    paid, order_id = order.paid, order.paid.order_id
    yield _step(0, paid.placed_at, paid, order_id)
    if order.shipped_at:
        yield _step(0, order.shipped_at, order.shipped(order.shipped_at), order_id)
    if order.delivered_at:
        yield _step(0, order.delivered_at, OrderDelivered(**order.keys, delivered_at=order.delivered_at), order_id)


def _refund(rng: Random, start: datetime, order: _Order) -> _Case:
    """All of what was not sent yet; something for what takes too long; one unit, or a part of it, of what arrived."""
    lines = order.paid.lines
    if not order.shipped_at:
        everything = [RequestedLine(line_id=line.line_id, quantity=line.quantity) for line in lines]
        return _case(rng, start, order, CaseKind.refund, "no_reason", everything)
    line = rng.choice(lines)
    if not order.delivered_at:
        some = RequestedLine(line_id=line.line_id, quantity=line.quantity, amount=line.amount * 15 // 100)
        return _case(rng, start, order, CaseKind.refund, "late", [some])
    reason = rng.choice(("missing", "quality", "not_as_described"))
    part = None if reason == "missing" else line.amount // line.quantity * rng.choice((20, 30, 50)) // 100
    one = RequestedLine(line_id=line.line_id, quantity=1, amount=part)
    return _case(rng, start, order, CaseKind.refund, reason, [one])


def _return(rng: Random, start: datetime, order: _Order) -> _Case:
    lines = order.paid.lines[: rng.randint(1, len(order.paid.lines))]
    wanted = [RequestedLine(line_id=line.line_id, quantity=rng.randint(1, line.quantity)) for line in lines]
    reason = rng.choice(("no_reason", "no_reason", "no_reason", "quality", "not_as_described"))
    return _case(rng, start, order, CaseKind.return_, reason, wanted)


def _case(rng: Random, start: datetime, order: _Order, kind: CaseKind, reason: str, lines: list[RequestedLine]) -> _Case:
    at, paid = rng.randint(10, 280) / 10, order.paid
    requested_at = start + timedelta(seconds=at)
    request = AftersaleRequested(
        merchant=MERCHANT,
        channel=paid.channel,
        reference=f"AS-{paid.order_id}",
        kind=kind,
        order_id=paid.order_id,
        currency=CURRENCY,
        reason=reason,
        note=NOTES[reason][paid.buyer.locale == "en"],
        lines=lines,
        requested_at=requested_at,
        deadline=requested_at + timedelta(seconds=48),  # the 48 hours of the platforms, an hour a second
    )
    return _Case(at, order, request)


def _trouble(refunds: Sequence[_Case]) -> Iterator[Step]:
    """Each trouble of the provider strikes one cheap refund with a single tender; two refunds of unsent goods find the
    label printed, and the goods leave."""
    cheap = sorted(refunds, key=lambda case: case.value)
    plain = (case.order.paid for case in cheap if case.order.shipped_at and len(case.order.paid.tenders) == 1)
    for faults, paid in zip(PAYMENT_TROUBLE, plain, strict=False):
        for name, times, seconds in faults:
            match = paid.tenders[0].payment_ref
            yield Step(0, Fault(match=match, fault=name, times=times, seconds=seconds))
    for case in [case for case in cheap if not case.order.shipped_at][:2]:
        order_id = case.order.paid.order_id
        yield Step(0, Fault(match=order_key(**case.order.keys), fault="stop_too_late"))
        at, time = case.after(2)
        yield _step(at, time, case.order.shipped(time), order_id)


def _fates(returns: Sequence[_Case]) -> Iterator[tuple[_Case, Fate]]:
    """The fates go to cheap returns of several units, because one unit cannot come in two parcels."""
    ranked = sorted(returns, key=lambda case: (case.units < 2, case.value))
    yield from zip(ranked, chain(FATES, repeat(Fate.straight)), strict=False)


def _goods(rng: Random, case: _Case, fate: Fate) -> Iterator[Step]:
    """What the buyer sends (told by the platform) and what the warehouse will find."""
    wait = 15 if fate is Fate.late else rng.randint(2, 6)
    at, time = case.after(wait)
    deliveries = () if fate in (Fate.never, Fate.withdrawn) else _deliveries(case.request, fate, wait + 2)
    yield Step(0, Plan(rma=case.request.case_id, deliveries=deliveries))
    if fate is Fate.withdrawn:
        yield _step(at, time, AftersaleWithdrawn(**case.keys, withdrawn_at=time), case.reference)
    for _ in deliveries:
        waybill = f"YT{rng.randrange(10**12):012d}"
        yield _step(at, time, ParcelReturning(**case.keys, waybill=waybill, carrier="yto", sent_at=time), waybill)


def _deliveries(request: AftersaleRequested, fate: Fate, after: float) -> tuple[Delivery, ...]:
    grade = Grade.damaged if fate is Fate.damaged else Grade.sellable
    lines = [ReceivedLine(line_id=line.line_id or "", quantity=line.quantity, grade=grade) for line in request.lines]
    one = lines[0].model_copy(update={"quantity": 1})
    others = [line.model_copy(update={"quantity": line.quantity - (line is lines[0])}) for line in lines]
    rest = [line for line in others if line.quantity] or lines
    if fate is Fate.short:
        return (Delivery(after_seconds=after, lines=rest),)
    if fate is Fate.two_parcels:
        return Delivery(after_seconds=after, lines=[one], final=False), Delivery(after_seconds=after + 4, lines=rest)
    return (Delivery(after_seconds=after, lines=lines, repeat=3 if fate is Fate.repeated else 1),)


def _second_thoughts(refunds: Sequence[_Case], each: int) -> Iterator[Step]:
    """Of the dearest refunds, which wait for a person, some are withdrawn and some get an earlier deadline; some of the
    middle are told again, as the same event and as a new one."""
    ranked = sorted(refunds, key=lambda case: -case.value)
    for case in ranked[:each]:
        at, time = case.after(5)
        yield _step(at, time, AftersaleWithdrawn(**case.keys, withdrawn_at=time), case.reference)
    for case in ranked[each : 2 * each]:
        at, time = case.after(3)
        changed = DeadlineChanged(**case.keys, deadline=time + timedelta(seconds=24), changed_at=time)
        yield _step(at, time, changed, case.reference)
    for case in ranked[len(ranked) // 2 :][:each]:
        for reference in (case.reference, f"{case.reference}-again"):
            yield _step(case.at + 1, case.request.requested_at, case.request, reference)


def _strangers(rng: Random, start: datetime, count: int) -> Iterator[Step]:
    """Requests on an order that nobody knows: the first names one, the others none."""
    for n in range(count):
        at = rng.randint(10, 280) / 10
        requested_at = start + timedelta(seconds=at)
        known = {"line_id": "1"} if n == 0 else {"sku": rng.choice(list(ITEMS))}
        data = AftersaleRequested(
            merchant=MERCHANT,
            channel="tmall",
            reference=f"AS-UNKNOWN-{n + 1}",
            kind=CaseKind.return_,
            order_id="TM0000000000" if n == 0 else None,
            currency=CURRENCY,
            reason="no_reason",
            lines=[RequestedLine(**known, quantity=1)],
            requested_at=requested_at,
        )
        yield _step(at, requested_at, data, data.reference)


def _step(at: float, time: datetime, data: OfOrder | OfCase, reference: str) -> Step:
    envelope = Envelope(id=f"{data.type_name}:{reference}", source=f"/{MERCHANT}/{data.channel}", time=time, data=data)
    return Step(at, envelope)


if __name__ == "__main__":
    sys.stdout.buffer.write(sample().encode())
