"""One file per process, in the order in which it happens."""

from domain.events import CaseKind
from workflows.refund import RefundProcess
from workflows.returns import ReturnProcess

PROCESSES = {CaseKind.refund: RefundProcess, CaseKind.return_: ReturnProcess}
"""The process of each kind of case."""
