"""What may follow what in the life of an effect: reports may be doubled, late or out of order, and the truth still wins."""

from collections.abc import Iterable
from functools import reduce
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from domain.effects import (
    DEAD,
    LIVE,
    OPEN,
    EffectState,
    cancel_rma_key,
    message_key,
    news,
    refund_key,
    rma_key,
    stop_key,
)
from domain.events import Key

STATES = st.sampled_from(EffectState)
LONGEST_CASE = f"{'m' * 40}:{'c' * 40}:{'R' * 64}"


def heard(known: EffectState, reports: Iterable[EffectState]) -> EffectState:
    """What we know after all reports, each taken only if it is news."""
    return reduce(lambda state, report: report if news(state, report) else state, reports, known)


@pytest.mark.parametrize("state", EffectState)
def test_an_echo_is_no_news(state: EffectState) -> None:
    assert not news(state, state)


@pytest.mark.parametrize("known", sorted(DEAD))
@given(reports=st.lists(STATES, max_size=6))
def test_there_is_no_way_back_from_declined_or_failed(known: EffectState, reports: list[EffectState]) -> None:
    assert heard(known, reports) is known


@pytest.mark.parametrize("known", [EffectState.planned, EffectState.unknown])
def test_before_we_know_anything_every_other_state_is_news(known: EffectState) -> None:
    assert {state for state in EffectState if news(known, state)} == set(EffectState) - {known}


def test_what_the_provider_accepted_can_only_succeed_or_fail() -> None:
    after = {state for state in EffectState if news(EffectState.pending, state)}
    assert after == {EffectState.succeeded, EffectState.failed}


def test_what_succeeded_can_only_be_taken_back() -> None:
    assert {state for state in EffectState if news(EffectState.succeeded, state)} == {EffectState.failed}


@given(reports=st.lists(STATES, max_size=8))
def test_after_acceptance_the_order_and_number_of_reports_do_not_matter(reports: list[EffectState]) -> None:
    told = set(reports)
    truth = next((s for s in (EffectState.failed, EffectState.succeeded) if s in told), EffectState.pending)
    assert heard(EffectState.pending, reports) is truth
    assert heard(EffectState.pending, reports + reports) is truth
    assert all(heard(EffectState.pending, order) is truth for order in permutations(told))


@given(known=STATES, reports=st.lists(STATES, max_size=8))
def test_an_effect_that_is_live_no_more_is_dead_for_good(known: EffectState, reports: list[EffectState]) -> None:
    path = [heard(known, reports[:count]) for count in range(len(reports) + 1)]
    dead = [state in DEAD for state in path]
    assert dead == sorted(dead)


def test_every_state_counts_against_the_tender_or_is_proven_undone() -> None:
    assert set(EffectState) == LIVE | DEAD
    assert not LIVE & DEAD
    assert {EffectState.unknown, EffectState.pending} == OPEN
    assert OPEN < LIVE
    assert {EffectState.succeeded, EffectState.planned} < LIVE


def test_no_two_effects_of_a_case_share_a_key() -> None:
    case, other = "lanhua:tmall:R1", "lanhua:tmall:R2"
    refunds = [refund_key(c, t, r) for c, t, r in product((case, other), ("t1", "t2"), (1, 2))]
    messages = [message_key(c, t, to) for c, t, to in product((case, other), ("declined", "expired"), ("buyer", "merchant"))]
    others = [make(c) for make, c in product((rma_key, cancel_rma_key, stop_key), (case, other))]
    keys = [*refunds, *messages, *others]
    assert len(set(keys)) == len(keys) == 22
    assert refund_key(case, "t1", 2) == "refund:lanhua:tmall:R1:t1:2"


@pytest.mark.parametrize(
    "key", [refund_key(LONGEST_CASE, "t" * 64, 10**9), cancel_rma_key(LONGEST_CASE), stop_key(LONGEST_CASE)]
)
def test_the_longest_key_can_come_back_in_a_providers_report(key: str) -> None:
    assert TypeAdapter(Key).validate_python(key) == key
