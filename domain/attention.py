"""The causes for which a case stops and asks for a person: what each means and what can be done. The runbook has a
section for each of them, and a test holds the two together."""

from typing import NamedTuple

from domain.cases import Action


class Cause(NamedTuple):
    """`en` and `zh` say what happened; `todo_en`, `todo_zh` say what to look at first."""

    actions: tuple[Action, ...]
    en: str
    zh: str
    todo_en: str
    todo_zh: str


_ALL = (Action.retry, Action.amend, Action.settle_by_hand, Action.abandon)
_IN_DOUBT = (Action.retry, Action.settle_by_hand)  # what may have moved is never given up

CAUSES: dict[str, Cause] = {
    "review_overdue": Cause(
        (Action.retry, Action.abandon),
        "nobody decided before the deadline", "到期无人审核",
        "decide it: aftersales decide ID approve|decline", "请审核：aftersales decide ID approve|decline",
    ),
    "shipment_not_stopped": Cause(
        (Action.retry, Action.amend, Action.abandon),
        "the warehouse could not stop the shipment any more", "仓库来不及拦截发货",
        "amend --waive refunds although the goods left; abandon declines", "amend --waive 照退款；abandon 拒绝",
    ),
    "warehouse_refused": Cause(
        _ALL, "the warehouse refused", "仓库拒绝", "see the detail, put it right there, then retry", "按提示在仓库处理后重试",
    ),
    "warehouse_down": Cause(
        _ALL, "the warehouse could not be reached", "仓库系统不可用", "retry when it answers again", "恢复后重试",
    ),
    "goods_overdue": Cause(
        (Action.retry, Action.amend, Action.abandon),
        "the parcel was sent but nothing was received in time", "包裹寄出但超时未入库",
        "ask the carrier; retry waits again; amend --waive settles on what has come", "查物流；retry 继续等；amend --waive 按已收结算",
    ),
    "goods_short": Cause(
        (Action.retry, Action.amend, Action.abandon),
        "fewer units were received than announced", "实收少于申报",
        "retry waits again; amend --waive settles on what has come", "retry 继续等；amend --waive 按已收结算",
    ),
    "goods_corrected": Cause(
        (Action.amend,),
        "the warehouse corrected a receipt downwards after the refund had left", "退款后仓库更正入库，已多退",
        "claim it back from the buyer or bear it, then amend --waive", "向买家追回或自行承担，然后 amend --waive",
    ),
    "refund_declined": Cause(
        _ALL, "the payment provider declined: nothing moved", "支付渠道拒绝退款，资金未动",
        "amend --tender another way back, or settle by hand with a voucher", "换支付方式 amend --tender，或线下退款登记凭证",
    ),
    "refund_failed": Cause(
        _ALL, "the provider had accepted the refund and then failed it", "渠道受理后退款失败",
        "amend --tender another way back, or settle by hand with a voucher", "换支付方式 amend --tender，或线下退款登记凭证",
    ),
    "outcome_unknown": Cause(
        _IN_DOUBT, "we do not know whether the provider moved the money", "退款结果未知",
        "look at the provider's console; retry sends the same key again", "到渠道后台核对；retry 用同一单号重发",
    ),
    "refund_overdue": Cause(
        _IN_DOUBT, "the provider has not confirmed in time", "渠道超时未确认到账",
        "ask the provider; retry waits again", "联系渠道；retry 继续等",
    ),
    "amount_differs": Cause(
        (Action.settle_by_hand,), "the provider moved another amount than asked", "渠道实退金额不符",
        "find out why; settle by hand books what was asked", "核实原因；settle-by-hand 按应退入账",
    ),
    "provider_down": Cause(
        _ALL, "the payment provider could not be reached; nothing moved", "支付渠道不可用，资金未动",
        "retry when it answers again", "恢复后重试",
    ),
    "tenders_exhausted": Cause(
        (Action.retry, Action.amend, Action.abandon),
        "the payments of the order cannot take back this much", "原支付余额不足退款",
        "look for other refunds on the order; amend --amount lowers it", "核对同单其他退款；amend --amount 调低金额",
    ),
    "message_undeliverable": Cause(
        _ALL, "a message could not be delivered", "消息发送失败",
        "amend --recipient another address; settle by hand if told by phone; abandon skips it",
        "amend --recipient 更换地址；电话告知用 settle-by-hand；abandon 跳过",
    ),
    "unexpected": Cause(
        (Action.retry, Action.abandon), "something happened that no rule covers", "未预料的错误",
        "read the detail and the log of the case, then retry", "查看详情和日志后重试",
    ),
}  # fmt: skip
"""Every cause code of attention; unmapped errors become `unexpected`."""
