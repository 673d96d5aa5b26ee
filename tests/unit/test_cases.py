"""A case has one identity, one state and one headline."""

from datetime import UTC, datetime
from itertools import product

import pytest
from pydantic import ValidationError

from domain.cases import (
    OUTCOMES,
    Action,
    Attention,
    CaseRequest,
    CaseStatus,
    CaseView,
    Claim,
    Note,
    Progress,
    Tracks,
    TrackState,
    case_number,
    headline,
    order_key,
    workflow_id,
)
from domain.events import AftersaleRequested, CaseKind, RequestedLine
from domain.resolution import Resolution

AT = datetime(2026, 3, 2, tzinfo=UTC)
PARKED = Attention(step="refund", cause="refund_declined", detail="no", since=AT, actions=(Action.retry,))
WAITING = {
    TrackState.awaiting_customer: CaseStatus.awaiting_customer,
    TrackState.awaiting_warehouse: CaseStatus.awaiting_warehouse,
    TrackState.awaiting_settlement: CaseStatus.awaiting_settlement,
}
ALL_TRACKS = [
    Tracks(goods_in=goods_in, goods_out=goods_out, money=money, messages=messages)
    for goods_in, goods_out, money, messages in product(TrackState, repeat=4)
]
VIEW = CaseView(case_id="lanhua:tmall:R1", revision=7, approved=500)


def in_order(tracks: Tracks) -> tuple[TrackState, ...]:
    return tracks.goods_in, tracks.goods_out, tracks.money, tracks.messages


def request(reference: str = "R1", order_id: str | None = "O1", note: str = "") -> AftersaleRequested:
    return AftersaleRequested(
        merchant="lanhua",
        channel="tmall",
        reference=reference,
        kind=CaseKind.return_,
        order_id=order_id,
        currency="CNY",
        reason="quality",
        note=note,
        lines=[RequestedLine(line_id="1", quantity=1)],
        requested_at=AT,
        deadline=AT,
    )


# The headline --------------------------------------------------------------------------------------------------------


def test_with_nothing_else_to_say_the_headline_is_the_first_track_that_waits() -> None:
    for tracks in ALL_TRACKS:
        waits = [WAITING[state] for state in in_order(tracks) if state in WAITING]
        assert headline(CaseView(case_id="c", tracks=tracks)) is (waits[0] if waits else CaseStatus.open)


@pytest.mark.parametrize("attention", [None, PARKED])
@pytest.mark.parametrize("in_review", [False, True])
@pytest.mark.parametrize("outcome", [None, *sorted(OUTCOMES)])
def test_an_outcome_goes_before_attention_before_review_before_any_track(
    outcome: CaseStatus | None, in_review: bool, attention: Attention | None
) -> None:
    for tracks in ALL_TRACKS[::7]:
        view = CaseView(case_id="c", tracks=tracks, in_review=in_review, attention=attention, outcome=outcome)
        if outcome or attention or in_review:
            assert view.status is (outcome or (CaseStatus.attention if attention else CaseStatus.in_review))
        else:
            assert view.status in {CaseStatus.open, *WAITING.values()}


def test_every_status_is_an_outcome_or_can_still_become_one() -> None:
    reachable = {headline(CaseView(case_id="c", tracks=tracks)) for tracks in ALL_TRACKS}
    assert reachable | {CaseStatus.in_review, CaseStatus.attention} | OUTCOMES == set(CaseStatus)
    assert {CaseStatus.completed, CaseStatus.declined, CaseStatus.withdrawn, CaseStatus.expired} == OUTCOMES


# The view ------------------------------------------------------------------------------------------------------------


def test_a_change_makes_the_next_revision_and_leaves_the_old_view_alone() -> None:
    after = VIEW.after(refunded=300, outcome=CaseStatus.completed)
    assert (after.revision, after.refunded, after.outcome, after.approved) == (8, 300, CaseStatus.completed, 500)
    assert (VIEW.revision, VIEW.refunded, VIEW.outcome) == (7, 0, None)


def test_moving_one_track_leaves_the_others_where_they_are() -> None:
    moved = VIEW.on(goods_in=TrackState.done).on(money=TrackState.awaiting_settlement)
    assert moved.tracks == Tracks(goods_in=TrackState.done, money=TrackState.awaiting_settlement)
    assert (moved.revision, moved.status) == (9, CaseStatus.awaiting_settlement)


def test_a_view_survives_the_way_through_json_and_a_field_that_it_does_not_know() -> None:
    view = VIEW.after(attention=PARKED, deadline=AT, taken=(Claim(line_id="1", quantity=2, amount=500),))
    assert CaseView.model_validate_json(view.model_dump_json()) == view
    assert CaseView.model_validate(view.model_dump() | {"new_tomorrow": 1}) == view


def test_a_view_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        VIEW.refunded = 1  # type: ignore[misc]


def test_what_an_activity_carries_is_of_the_case_it_shows() -> None:
    note = Note(seq=1, at=AT, step="case.opened", text="opened")
    assert Progress(view=VIEW, at=AT, notes=(note,)).case_id == VIEW.case_id
    assert note.actor == "system"


# Identity ------------------------------------------------------------------------------------------------------------


def test_ids_are_made_of_business_data() -> None:
    assert request().case_id == "lanhua:tmall:R1"
    assert workflow_id(request().case_id) == "case/lanhua:tmall:R1"
    assert order_key("lanhua", "tmall", "O1") == "lanhua:tmall:O1"
    assert [case_number(2026, 123), case_number(2026, 1234567)] == ["AS-2026-000123", "AS-2026-1234567"]


@pytest.mark.parametrize("part", ["merchant", "channel", "reference", "order_id"])
@pytest.mark.parametrize("text", ["a:b", "a/b", "a b", "", "a\n", ".a"])
def test_no_part_of_an_id_can_hold_what_joins_or_hides_parts(part: str, text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        AftersaleRequested.model_validate(request().model_dump() | {part: text})
    assert [error["loc"] for error in refused.value.errors()] == [(part,)]


def test_a_case_starts_from_the_request_without_anything_personal() -> None:
    claims = (Claim(line_id="1", quantity=1, amount=500),)
    event = request(note="call 13800000000")
    started = CaseRequest.of(event, claims)
    shared = ("case_id", "kind", "merchant", "channel", "order_id", "currency", "reason", "requested_at", "deadline")
    assert {name: getattr(started, name) for name in shared} == {name: getattr(event, name) for name in shared}
    assert (started.lines, started.order_key) == (claims, "lanhua:tmall:O1")
    assert "13800000000" not in started.model_dump_json()


def test_a_case_cannot_start_without_an_order() -> None:
    with pytest.raises(AssertionError):
        CaseRequest.of(request(order_id=None), ())


# A person's word -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"waive": True}, {"amount": 0}, {"tender_id": "t1"}, {"recipient": "a@example.com"}])
def test_a_resolution_amends_when_it_names_anything_to_change(change: dict[str, object]) -> None:
    plain = Resolution(action=Action.amend, by="li", reason="asked by the buyer", voucher="V1")
    assert not plain.amends
    assert plain.model_copy(update=change).amends
