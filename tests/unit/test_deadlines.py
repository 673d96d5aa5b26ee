"""A wait tells what it should at the right moment, wherever its end is moved to."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.deadlines import Wait, in_words, polls

START = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SPANS = st.integers(1, 400 * 24 * 60).map(lambda minutes: timedelta(minutes=minutes))
WAITS = st.builds(
    Wait,
    since=st.just(START),
    within=SPANS,
    platform=st.none() | st.integers(-1000, 10_000).map(lambda hours: START + hours * HOUR),
    remind_after=st.none() | SPANS,
    reminder=st.just("reminder"),
    alarm_before=st.none() | SPANS,
    alarm=st.just("alarm"),
)


def told_at(wait: Wait) -> dict[str, datetime]:
    return {mark.template: mark.at for mark in wait.marks}


@given(wait=WAITS)
def test_the_platforms_word_is_the_end_and_without_it_the_policys(wait: Wait) -> None:
    assert wait.expires_at == (START + wait.within if wait.platform is None else wait.platform)


@given(wait=WAITS)
def test_nothing_is_told_after_the_end_or_before_the_start(wait: Wait) -> None:
    assert all(START <= mark.at <= max(START, wait.expires_at) for mark in wait.marks)
    assert [mark.at for mark in wait.marks] == sorted(mark.at for mark in wait.marks)


@given(wait=WAITS, hours=st.integers(1, 10_000))
def test_wherever_the_deadline_is_moved_the_alarm_comes_before_it(wait: Wait, hours: int) -> None:
    moved = wait.model_copy(update={"platform": START + hours * HOUR})
    if moved.alarm_before is None:
        assert "alarm" not in told_at(moved)
    else:
        assert START <= told_at(moved)["alarm"] < moved.expires_at
        assert told_at(moved)["alarm"] == max(START, moved.expires_at - moved.alarm_before)


@given(wait=WAITS, hours=st.integers(1, 10_000))
def test_the_reminder_stays_when_the_deadline_moves_unless_the_end_overtakes_it(wait: Wait, hours: int) -> None:
    for one in (wait, wait.model_copy(update={"platform": START + hours * HOUR})):
        due = None if one.remind_after is None else START + one.remind_after
        assert told_at(one).get("reminder") == (due if due and due < one.expires_at else None)


@given(wait=WAITS, after=st.integers(0, 11_000))
def test_the_next_moment_is_still_to_come_or_is_the_end(wait: Wait, after: int) -> None:
    now = START + after * HOUR
    told = frozenset(mark.template for mark in wait.marks if mark.at <= now)
    moment = wait.next_moment(told)
    assert moment == wait.expires_at or now < moment < wait.expires_at


@given(wait=WAITS.filter(lambda wait: wait.expires_at > START))
def test_waking_at_every_next_moment_tells_each_thing_once_and_on_time_and_ends(wait: Wait) -> None:
    now, told = START, dict[str, datetime]()
    for _ in range(3):
        told |= {mark.template: now for mark in wait.marks if mark.at <= now and mark.template not in told}
        if now == wait.expires_at:
            break
        now = wait.next_moment(frozenset(told))
    told |= {mark.template: now for mark in wait.marks if mark.at <= now and mark.template not in told}
    assert now == wait.expires_at
    assert told == told_at(wait)


def test_a_deadline_that_is_moved_up_moves_the_alarm_up_with_it() -> None:
    wait = Wait(since=START, within=24 * HOUR, alarm_before=6 * HOUR, alarm="near")
    assert wait.next_moment(frozenset()) == START + 18 * HOUR
    sooner = wait.model_copy(update={"platform": START + 10 * HOUR})
    assert sooner.next_moment(frozenset()) == START + 4 * HOUR
    assert sooner.next_moment(frozenset({"near"})) == START + 10 * HOUR


@pytest.mark.parametrize(
    ("deadline", "alarm"),
    [
        (datetime.min.replace(tzinfo=UTC), START),
        (datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC) - 6 * HOUR),
    ],
)
def test_no_deadline_that_a_platform_can_name_breaks_a_wait(deadline: datetime, alarm: datetime) -> None:
    wait = Wait(since=START, within=HOUR, platform=deadline, alarm_before=6 * HOUR, alarm="near")
    assert told_at(wait) == {"near": alarm}


@given(count=st.integers(0, 5_000), after=st.integers(1, 120), at_most=st.integers(1, 10**7))
def test_polls_double_up_to_the_longest_pause(count: int, after: int, at_most: int) -> None:
    pause = polls(timedelta(seconds=after), timedelta(seconds=at_most), count)
    assert pause == timedelta(seconds=min(after * 2 ** min(count, 20), at_most))


def test_polls_start_with_the_first_pause_and_go_on_for_ever() -> None:
    pauses = [polls(timedelta(minutes=1), 12 * HOUR, count) for count in (0, 1, 2, 3, 9, 10, 10**6)]
    assert [pause // timedelta(minutes=1) for pause in pauses] == [1, 2, 4, 8, 512, 720, 720]


def test_people_read_a_moment_to_the_minute_and_with_its_zone() -> None:
    assert in_words(datetime(2026, 11, 2, 5, 7, 59, tzinfo=UTC)) == "2026-11-02 05:07 UTC"
