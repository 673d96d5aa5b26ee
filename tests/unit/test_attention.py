"""Every cause of attention says in both languages what happened, what to look at, and what can be done."""

import re

import pytest

from domain.attention import CAUSES, Cause
from domain.cases import Action

CHINESE = re.compile(r"[一-鿿]")


@pytest.mark.parametrize("code", CAUSES)
def test_every_cause_is_explained_in_both_languages_and_has_a_way_out(code: str) -> None:
    cause = CAUSES[code]
    assert re.fullmatch(r"[a-z][a-z_]{0,39}", code)
    assert cause.actions and len(set(cause.actions)) == len(cause.actions)
    for english, chinese in ((cause.en, cause.zh), (cause.todo_en, cause.todo_zh)):
        assert english.strip() and english.isascii()
        assert CHINESE.search(chinese)


@pytest.mark.parametrize("code", CAUSES)
def test_no_advice_names_an_action_that_the_cause_does_not_offer(code: str) -> None:
    cause = CAUSES[code]
    english = cause.todo_en.replace("settle by hand", "settle-by-hand")
    for action in Action:
        if re.search(rf"(?<![\w-]){action}\b", english) or re.search(rf"(?<![\w-]){action}\b", cause.todo_zh, re.ASCII):
            assert action in cause.actions


def test_money_that_may_have_moved_is_never_given_up() -> None:
    for code in ("outcome_unknown", "refund_overdue", "amount_differs", "goods_corrected"):
        assert Action.abandon not in CAUSES[code].actions
    for code in ("outcome_unknown", "refund_overdue", "amount_differs"):
        assert Action.amend not in CAUSES[code].actions


def test_what_no_rule_covers_has_a_cause_of_its_own() -> None:
    assert isinstance(CAUSES["unexpected"], Cause)


def test_no_two_causes_say_the_same() -> None:
    assert len({cause.en for cause in CAUSES.values()}) == len({cause.zh for cause in CAUSES.values()}) == len(CAUSES)
