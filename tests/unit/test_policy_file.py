"""Every mistake in a policy is told with its file, line and field before it can decide anything."""

from datetime import timedelta
from pathlib import Path

import pytest

from domain.errors import Rejected
from domain.policy_file import parse

SHIPPED = Path(__file__).parents[2] / "policies"
TEXT = """\
# the rules of a shop
version: "1"
merchant: "*"
channel: "*"
auto_approve:
  - kinds: [refund]
    up_to: {CNY: 20000}
  - kinds: [return]
    reasons: [quality]
abuse:
  within: 30d
  requests: 5
review: {within: 24h, alarm_before: 6h, on_expiry: attention}
parcel: {within: 7d, remind_after: 4d}
receipt: {within: 10d, chase_after: 5d, on_short: settle}
payment:
  poll_after: 1m
  poll_at_most: 12h
  unknown_for: 30m
  confirm_within: 15d
  try_for: 1h
tenders: original_first
grades:
  sellable: {pay_percent: 100, disposition: restock}
  damaged: {pay_percent: 0, disposition: scrap}
  wrong_item: {pay_percent: 0, disposition: return_to_vendor}
tell:
  refund_paid: [buyer]
"""


def changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)


def complaints(**texts: str) -> list[str]:
    with pytest.raises(Rejected) as refused:
        parse(texts)
    assert refused.value.cause == "bad_policy"
    return str(refused.value).split("; ")


def test_a_good_file_is_read_under_its_name() -> None:
    name, policy = parse({"shop.yaml": TEXT}).of("lanhua", "tmall")
    assert (name, policy.version, policy.payment.try_for) == ("shop.yaml", "1", timedelta(hours=1))
    assert [rule.up_to for rule in policy.auto_approve] == [{"CNY": 20000}, None]


def test_the_policies_that_come_with_the_project_are_good() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in SHIPPED.glob("*.yaml")}
    assert parse(texts).of("nobody", "nowhere")[0] == "default.yaml"


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("  within: 30d", "  within: thirty", 11, "abuse.within"),
        ("  within: 30d", "  within: 0d", 11, "abuse.within"),
        ("  requests: 5", "  requests: many", 12, "abuse.requests"),
        ("tenders: original_first", "tenders: cheapest_first", 22, "tenders"),
        ("pay_percent: 100", "pay_percent: 101", 24, "grades.sellable.pay_percent"),
        ("{CNY: 20000}", "{CNY: a lot}", 7, "auto_approve.0.up_to.CNY"),
        ("{CNY: 20000}", "{cny: 20000}", 7, "auto_approve.0.up_to.cny"),
        ("kinds: [return]", "kinds: [retrun]", 8, "auto_approve.1.kinds.0"),
        ("[buyer]", "[byer]", 28, "tell.refund_paid.0"),
        ("on_expiry: attention", "on_expiry: shrug", 13, "review.on_expiry"),
        ('merchant: "*"', "merchant: Lan Hua", 3, "merchant"),
    ],
)
def test_a_bad_value_is_told_with_its_line_and_field(old: str, new: str, line: int, field: str) -> None:
    for complaint in complaints(shop=changed(old, new)):
        assert complaint.startswith((f"shop:{line}: {field}: ", f"shop:{line}: {field}."))


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("abuse:", "abuze:", 10, "abuze"),
        ("  requests: 5", "  requests: 5\n  request: 9", 13, "abuse.request"),
        ("    reasons: [quality]", "    reason: [quality]", 9, "auto_approve.1.reason"),
        ("chase_after: 5d", "chase_after: 5d, chaseafter: 1d", 15, "receipt.chaseafter"),
        ("damaged: {pay_percent: 0,", "damaged: {pay_percent: 0, pay: 5,", 25, "grades.damaged.pay"),
        ("  sellable:", "  selable:", 24, "grades.selable.[key]"),
    ],
)
def test_a_misspelt_rule_is_refused_because_it_would_silently_not_apply(old: str, new: str, line: int, field: str) -> None:
    assert any(complaint.startswith(f"shop:{line}: {field}: ") for complaint in complaints(shop=changed(old, new)))


def test_a_missing_rule_is_named_at_the_part_that_lacks_it() -> None:
    assert complaints(shop=changed("  try_for: 1h\n", "")) == ["shop:17: payment.try_for: Field required"]
    assert complaints(shop=changed("tenders: original_first\n", "")) == ["shop:2: tenders: Field required"]


def test_all_mistakes_of_all_files_are_told_at_once() -> None:
    several = changed("  requests: 5", "  requests: many").replace("tenders: original_first", "tenders: none")
    told = complaints(a=several, b=changed("  within: 30d", "  within: 1w"))
    assert [one.split(": ")[:2] for one in told] == [["a:12", "abuse.requests"], ["a:22", "tenders"], ["b:11", "abuse.within"]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (changed("tenders: original_first", "tenders: [original_first"), 23),
        (changed("  requests: 5", "   requests: 5"), 12),
        (TEXT + "---\nversion: 2\n", 29),
        (changed("original_first", "!!python/object:os.system x"), 22),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(text: str, line: int) -> None:
    (complaint,) = complaints(shop=text)
    assert complaint.startswith(f"shop:{line}: not YAML: ")


def test_a_character_that_yaml_forbids_is_told_like_any_mistake() -> None:
    (complaint,) = complaints(shop=changed("abuse:", "abuse:\x01"))
    assert complaint.startswith("shop:") and "not YAML" in complaint


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a list\n", "words\n"])
def test_a_file_without_rules_is_no_policy(text: str) -> None:
    (complaint,) = complaints(shop=text)
    assert complaint.startswith("shop:1: policy: ")


def test_two_files_for_the_same_merchant_and_channel_are_refused() -> None:
    assert complaints(a=TEXT, b=TEXT) == ["b:1: merchant, channel: a has the same"]


def test_a_rule_that_is_written_twice_is_refused_because_one_would_silently_not_apply() -> None:
    (complaint,) = complaints(shop=changed("tenders: original_first", "tenders: original_first\ntenders: pro_rata"))
    assert complaint.startswith("shop:23: tenders: ")


def test_somebodys_policy_alone_leaves_the_others_without_rules() -> None:
    assert "no policy is for merchant '*'" in complaints(shop=changed('merchant: "*"', "merchant: lanhua"))[0]
    assert "no policy is for merchant '*'" in complaints()[0]
    assert parse({"a": TEXT, "b": changed('merchant: "*"', "merchant: lanhua")}).of("lanhua", "jd")[0] == "b"


def test_a_policy_says_what_every_grade_is_worth() -> None:
    (complaint,) = complaints(shop=changed("  damaged: {pay_percent: 0, disposition: scrap}\n", ""))
    assert "damaged" in complaint


def test_no_grade_of_a_unit_that_came_can_go_missing() -> None:
    (complaint,) = complaints(shop=changed("disposition: scrap", "disposition: missing"))
    assert complaint.startswith("shop:25: grades.damaged")
