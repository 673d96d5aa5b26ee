"""How an answer over HTTP becomes one of our few errors: the difference between *surely nothing happened* and *we do not
know* decides whether a call may be made again, so it is drawn here, once."""

from typing import Any

import httpx

from domain.errors import DependencyDown, OutcomeUnknown, RateLimited, Rejected


async def ask(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer if it is a success; else

    - `DependencyDown` if the request surely never left,
    - `RateLimited` for 429, with the seconds of `Retry-After`,
    - `Rejected` for another 4xx, with the `code` of its JSON body as cause,
    - `OutcomeUnknown` for a 5xx, a timeout, a cut connection or a body that is not JSON.
    """
    try:
        answer = await client.request(method, path, **options)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise DependencyDown(f"{client.base_url} cannot be reached: {error or type(error).__name__}") from error
    except httpx.TransportError as error:
        raise OutcomeUnknown(f"no answer from {client.base_url}: {type(error).__name__}") from error
    if answer.status_code == 429:
        raise RateLimited(f"{client.base_url} asks to come later", retry_after=_seconds(answer))
    if answer.is_server_error:
        raise OutcomeUnknown(f"{client.base_url} answered {answer.status_code}")
    if answer.is_error:
        body = _json(answer)
        raise Rejected(
            str(body.get("message", f"answered {answer.status_code}")), cause=str(body.get("code", answer.status_code))
        )
    _json(answer)
    return answer


def _seconds(answer: httpx.Response) -> float:
    try:
        return max(0.0, min(float(answer.headers.get("Retry-After", "1")), 3_600.0))
    except ValueError:
        return 1.0


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError as error:
        raise OutcomeUnknown(f"{answer.url.host} answered {answer.status_code} with a body that is not JSON") from error
    return body if isinstance(body, dict) else {}
