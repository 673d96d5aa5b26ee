"""What one sandbox needs to know; who runs it decides, nothing is read from the environment."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, SecretStr


class SandboxConfig(BaseModel):
    """`intake_url` takes our webhooks; `secret` (`whsec_…`) signs them and checks the messages that come in."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    db: Path
    intake_url: str
    secret: SecretStr
    settle_seconds: NonNegativeFloat = 0.2
    """How long a refund stays pending."""
    auto_receive_seconds: NonNegativeFloat | None = 1.0
    """After how long announced goods arrive in full when no plan says otherwise; None means never."""
