"""Every setting of the system in one typed model, read from the environment (prefix `AFTERSALES_`) and nowhere else.

Two names are not ours and keep their usual form: `DATABASE_URL`, and the Temporal client profile (`TEMPORAL_ADDRESS`,
`TEMPORAL_NAMESPACE`, `TEMPORAL_TLS…`, `TEMPORAL_API_KEY`), which `engine.client` reads by `temporalio.envconfig`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from domain.errors import Rejected


class Settings(BaseSettings):
    """All settings with their defaults; `AFTERSALES_TASK_QUEUE=x` sets `task_queue`."""

    model_config = SettingsConfigDict(env_prefix="AFTERSALES_", frozen=True, extra="ignore", populate_by_name=True)

    data_dir: Path = Path("data")
    """Where the embedded stack keeps its databases, its keys and the addresses of what runs."""
    database_url: str = Field(default="", validation_alias="DATABASE_URL")
    """SQLAlchemy URL of the records; empty means SQLite in `data_dir`."""
    policies: Path = Path("policies")
    """The folder of the merchants' rules."""
    task_queue: str = "aftersales"

    payload_keys: SecretStr = SecretStr("")
    """Keys of the payload codec as `id:base64,id:base64`, the first one encrypts; empty means the key file in `data_dir`."""
    webhook_secrets: dict[str, SecretStr] = {}
    """Standard Webhooks secret (`whsec_…`) by CloudEvents source."""
    allow_unsigned: bool = False
    """Take unsigned events; the embedded stack sets it and binds loopback only."""
    max_body_bytes: int = 2_000_000
    max_requests_per_second: int = 500
    """Per client address of the intake; more is answered 429."""

    intake_host: str = "127.0.0.1"
    intake_port: int = 8600
    metrics_port: int = 0
    """Prometheus metrics of the SDK on 127.0.0.1; 0 means none for a worker, and any free port for `aftersales up`."""
    sweep_seconds: float = 5.0
    """How often the intake finishes what a crash or an absent order left waiting."""
    order_wait_seconds: float = 7 * 86_400
    """How long an event may wait for its order or case before it goes to the orphan pool."""

    payments: Literal["sandbox"] = "sandbox"
    warehouse: Literal["sandbox"] = "sandbox"
    messaging: Literal["webhook", "smtp"] = "webhook"
    sandbox_url: str = "http://127.0.0.1:8650"
    message_webhook_url: str = ""
    """Where messages go by signed webhook; empty means the sandbox's message box."""
    message_webhook_secret: SecretStr = SecretStr("")
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 25
    smtp_username: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_sender: str = "service@example.com"
    http_timeout_seconds: float = 10.0
    """How long a call to an outside system may take before its outcome counts as unknown."""

    log_json: bool | None = None
    """JSON logs; by default a console in a terminal and JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def records_url(self) -> str:
        """The SQLAlchemy URL of the records, with the driver this project uses named in it."""
        url = self.database_url or f"sqlite:///{(self.data_dir / 'aftersales.db').absolute()}"
        for plain in ("postgresql://", "postgres://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        return url

    def policy_texts(self) -> dict[str, str]:
        """The merchants' rules by file name, for `domain.policy_file.parse`; `Rejected` when the folder has none."""
        files = sorted(self.policies.glob("*.yaml"))
        if not files:
            raise Rejected(f"no policies (*.yaml) in {self.policies}", field="AFTERSALES_POLICIES")
        return {file.name: file.read_text(encoding="utf-8") for file in files}


def load(**overrides: object) -> Settings:
    """The settings of this process; `Rejected` in one line for a bad one."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except (ValidationError, SettingsError) as error:
        raise Rejected(f"bad setting: {_named(error)}", cause="bad_setting") from error


def _named(error: ValidationError | SettingsError) -> str:
    """Each bad setting by the name that its variable has."""
    if isinstance(error, SettingsError):
        return str(error)
    said = []
    for e in error.errors(include_url=False, include_input=False):
        first, *rest = map(str, e["loc"])
        name = first if first.isupper() else f"AFTERSALES_{first.upper()}"
        said.append(f"{'.'.join([name, *rest])}: {e['msg']}")
    return "; ".join(said)
