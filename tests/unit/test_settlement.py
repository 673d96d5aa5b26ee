"""What is owed follows the goods and never exceeds the claim; what goes back over tenders adds up and fits each of them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cases import Claim, Counted
from domain.errors import Conflict
from domain.events import Grade
from domain.settlement import (
    Disposition,
    GradeTerms,
    Settlement,
    Slice,
    TenderKind,
    TenderLeft,
    TenderOrder,
    amended,
    over_tenders,
    owed_for_claims,
    owed_for_goods,
)

KINDS: list[TenderKind] = ["card", "wallet", "voucher"]
FULL = {grade: GradeTerms(pay_percent=100, disposition=Disposition.restock) for grade in Grade}
PERCENT = st.integers(0, 100)
GRADES = st.tuples(PERCENT, PERCENT, PERCENT).map(
    lambda percents: {
        grade: GradeTerms(pay_percent=percent, disposition=Disposition.restock)
        for grade, percent in zip(Grade, percents, strict=True)
    }
)
CLAIMS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 10_000)), min_size=1, max_size=4).map(
    lambda pairs: [Claim(line_id=str(index), quantity=q, amount=amount) for index, (q, amount) in enumerate(pairs)]
)
COUNTED = st.lists(
    st.builds(Counted, line_id=st.sampled_from("01234"), quantity=st.integers(1, 4), grade=st.sampled_from(Grade)), max_size=8
)
FEES = st.integers(0, 12_000)
TENDERS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 500)), max_size=6).map(
    lambda pairs: [TenderLeft(tender_id=str(index), kind=kind, left=left) for index, (kind, left) in enumerate(pairs)]
)


def claim(quantity: int, amount: int, line_id: str = "0") -> Claim:
    return Claim(line_id=line_id, quantity=quantity, amount=amount)


def counted(quantity: int, grade: Grade, line_id: str = "0") -> Counted:
    return Counted(line_id=line_id, quantity=quantity, grade=grade)


# What is owed --------------------------------------------------------------------------------------------------------


def test_where_nothing_comes_back_the_claims_are_owed_as_they_are() -> None:
    owed = owed_for_claims([claim(1, 700), claim(2, 300, "1")])
    assert (owed.lines, owed.fee, owed.amount) == ((claim(1, 700), claim(2, 300, "1")), 0, 1000)


@given(claims=CLAIMS, goods=COUNTED, grades=GRADES, fee=FEES)
def test_never_more_is_owed_than_was_claimed_and_the_fee_is_taken_from_it_only(
    claims: list[Claim], goods: list[Counted], grades: dict[Grade, GradeTerms], fee: int
) -> None:
    owed = owed_for_goods(claims, goods, grades, fee)
    by_line = {one.line_id: one for one in claims}
    assert len({one.line_id for one in owed.lines}) == len(owed.lines)
    for one in owed.lines:
        accepted = sum(item.quantity for item in goods if item.line_id == one.line_id)
        assert one.quantity == min(by_line[one.line_id].quantity, accepted)
        assert 0 <= one.amount <= by_line[one.line_id].amount
    assert owed.fee == min(fee, owed.gross)
    assert owed.amount == owed.gross - owed.fee >= 0


@given(claims=CLAIMS, goods=COUNTED, more=COUNTED, grades=GRADES, fee=FEES)
def test_more_accepted_units_never_lower_what_is_owed(
    claims: list[Claim], goods: list[Counted], more: list[Counted], grades: dict[Grade, GradeTerms], fee: int
) -> None:
    assert owed_for_goods(claims, goods + more, grades, fee).amount >= owed_for_goods(claims, goods, grades, fee).amount


@given(claims=CLAIMS)
def test_all_units_back_as_good_as_new_are_worth_the_claim(claims: list[Claim]) -> None:
    goods = [counted(one.quantity, Grade.sellable, one.line_id) for one in claims]
    assert owed_for_goods(claims, goods, FULL, 0) == owed_for_claims(claims)


def test_two_of_three_units_back_and_one_of_them_damaged_pay_by_grade() -> None:
    grades = FULL | {Grade.damaged: GradeTerms(pay_percent=40, disposition=Disposition.scrap)}
    owed = owed_for_goods([claim(3, 30_000)], [counted(1, Grade.sellable), counted(1, Grade.damaged)], grades, 500)
    assert owed == Settlement(lines=(claim(2, 14_000),), fee=500)
    assert owed.amount == 13_500


def test_of_more_units_than_claimed_the_best_count() -> None:
    grades = FULL | {Grade.damaged: GradeTerms(pay_percent=0, disposition=Disposition.scrap)}
    goods = [counted(2, Grade.damaged), counted(1, Grade.sellable)]
    assert owed_for_goods([claim(2, 2_000)], goods, grades, 0).lines == (claim(2, 1_000),)


def test_a_line_of_which_nothing_came_is_not_settled() -> None:
    owed = owed_for_goods([claim(1, 500), claim(1, 700, "1")], [counted(1, Grade.sellable, "1")], FULL, 0)
    assert owed.lines == (claim(1, 700, "1"),)


# By a person's word --------------------------------------------------------------------------------------------------


@given(claims=CLAIMS.filter(lambda claims: any(one.amount for one in claims)), amount=st.integers(0, 100_000))
def test_an_amended_settlement_is_the_amount_named_shared_over_the_same_lines(claims: list[Claim], amount: int) -> None:
    owed = amended(Settlement(lines=tuple(claims), fee=3), amount)
    assert (owed.amount, owed.fee) == (amount, 0)
    assert [(one.line_id, one.quantity) for one in owed.lines] == [(one.line_id, one.quantity) for one in claims]
    for now, before in zip(owed.lines, claims, strict=True):
        assert abs(now.amount - Fraction(amount * before.amount, sum(one.amount for one in claims))) < 1


def test_what_was_worth_nothing_can_be_amended_too() -> None:
    free = Settlement(lines=(claim(1, 0), claim(3, 0, "1")))
    assert amended(free, 0).lines == free.lines
    assert amended(free, 400).amount == 400


# Over the tenders ----------------------------------------------------------------------------------------------------


@given(tenders=TENDERS, order=st.sampled_from(TenderOrder), amount=st.integers(0, 3_500))
def test_slices_are_positive_fit_their_tenders_and_add_up_or_it_is_a_conflict(
    tenders: list[TenderLeft], order: TenderOrder, amount: int
) -> None:
    left = {tender.tender_id: tender.left for tender in tenders}
    if amount > sum(left.values()):
        with pytest.raises(Conflict, match=f"{amount} to refund"):
            over_tenders(amount, tenders, order)
        return
    slices = over_tenders(amount, tenders, order)
    assert sum(one.amount for one in slices) == amount
    assert len({one.tender_id for one in slices}) == len(slices)
    assert all(0 < one.amount <= left[one.tender_id] for one in slices)


@given(
    tenders=TENDERS,
    order=st.sampled_from([TenderOrder.original_first, TenderOrder.voucher_first]),
    portion=st.fractions(0, 1),
)
def test_a_tender_is_touched_only_when_all_before_it_are_used_up(
    tenders: list[TenderLeft], order: TenderOrder, portion: Fraction
) -> None:
    slices = over_tenders(int(sum(tender.left for tender in tenders) * portion), tenders, order)
    got = {one.tender_id: one.amount for one in slices}
    vouchers = [tender for tender in tenders if tender.kind == "voucher"]
    originals = [tender for tender in tenders if tender.kind != "voucher"]
    ranked = originals + vouchers if order is TenderOrder.original_first else vouchers + originals
    untouched = [got.get(tender.tender_id, 0) < tender.left for tender in ranked]
    after = ranked[untouched.index(True) + 1 :] if any(untouched) else []
    assert not any(tender.tender_id in got for tender in after)


@given(tenders=TENDERS.filter(lambda tenders: any(tender.left for tender in tenders)), portion=st.fractions(0, 1))
def test_pro_rata_takes_of_each_by_what_is_left(tenders: list[TenderLeft], portion: Fraction) -> None:
    left = sum(tender.left for tender in tenders)
    amount = int(left * portion)
    got = {one.tender_id: one.amount for one in over_tenders(amount, tenders, TenderOrder.pro_rata)}
    for tender in tenders:
        assert abs(got.get(tender.tender_id, 0) - Fraction(amount * tender.left, left)) < 1


@pytest.mark.parametrize("order", TenderOrder)
def test_nothing_goes_back_over_tenders_that_have_nothing_left(order: TenderOrder) -> None:
    used_up = [TenderLeft(tender_id="t1", kind="card", left=0), TenderLeft(tender_id="t2", kind="voucher", left=0)]
    assert over_tenders(0, used_up, order) == over_tenders(0, [], order) == ()
    with pytest.raises(Conflict):
        over_tenders(1, used_up, order)


@pytest.mark.parametrize(
    ("order", "slices"),
    [
        (TenderOrder.original_first, [("card", 70), ("wallet", 10)]),
        (TenderOrder.voucher_first, [("voucher", 30), ("card", 50)]),
        (TenderOrder.pro_rata, [("voucher", 20), ("card", 47), ("wallet", 13)]),
    ],
)
def test_the_policy_says_which_payment_the_money_goes_back_to(order: TenderOrder, slices: list[tuple[str, int]]) -> None:
    tenders = [
        TenderLeft(tender_id="voucher", kind="voucher", left=30),
        TenderLeft(tender_id="card", kind="card", left=70),
        TenderLeft(tender_id="wallet", kind="wallet", left=20),
    ]
    expected = tuple(Slice(tender_id=tender, amount=amount) for tender, amount in slices)
    assert over_tenders(80, tenders, order) == expected
