"""How the counterparts say no: one exception, and the JSON it becomes."""

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError


class Refused(Exception):
    """Answered as `{"code", "message"}`; the transaction around it is rolled back."""

    def __init__(self, status: int, code: str, message: str = "", *, retry_after: int | None = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


async def answer_refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse({"code": error.code, "message": error.message}, error.status, headers)


async def answer_invalid(_request: Request, error: Exception) -> JSONResponse:
    """What does not fit the contract is refused before anything is done."""
    assert isinstance(error, ValidationError)
    message = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
    return JSONResponse({"code": "invalid_request", "message": message}, 422)
