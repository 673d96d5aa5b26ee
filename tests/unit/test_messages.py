"""What people are told: every message exists in both languages and says what it is about."""

import pytest

from adapters.messaging.render import MessageFacts, render
from domain.errors import NotFound
from domain.policy import Template

FACTS = MessageFacts(
    case_no="AS-2026-000001",
    order_id="O-1",
    amount="CNY 12.30",
    address="文一西路 969 号",
    reason="why",
    deadline="2026-11-22 10:00 UTC",
)


@pytest.mark.parametrize("locale", ["zh", "en"])
@pytest.mark.parametrize("template", Template)
def test_every_message_exists_in_chinese_and_english_and_names_its_case(template: Template, locale: str) -> None:
    subject, text = render(template.value, locale, FACTS)

    assert subject
    assert "AS-2026-000001" in subject + text
    assert any("\u4e00" <= sign <= "\u9fff" for sign in subject) == (locale == "zh")


def test_the_paid_message_names_the_amount_and_the_address_message_the_address() -> None:
    assert "CNY 12.30" in render("refund_paid", "zh", FACTS)[1]
    assert "文一西路 969 号" in render("return_address", "en", FACTS)[1]


def test_a_message_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound, match="no_such"):
        render("no_such", "zh", FACTS)
