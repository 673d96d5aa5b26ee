"""Messages by SMTP. A repeat carries the same Message-ID, by which mail programs show it once."""

import hashlib
from email.message import EmailMessage

import aiosmtplib

from adapters.messaging.port import Message
from domain.effects import EffectState, Outcome
from domain.errors import DependencyDown, OutcomeUnknown


class SmtpMessenger:
    """Sends from `sender` by one SMTP server; a user name turns authentication on."""

    needs_address = True

    def __init__(
        self, *, host: str, port: int, sender: str, username: str = "", password: str = "", timeout: float = 10
    ) -> None:
        self._server = {"hostname": host, "port": port, "timeout": timeout}
        if username:
            self._server |= {"username": username, "password": password}
        self._sender = sender

    async def send(self, message: Message) -> Outcome:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self._sender, message.address, message.subject
        mail["Message-ID"] = f"<{hashlib.sha256(message.key.encode()).hexdigest()[:40]}@{self._sender.partition('@')[2]}>"
        mail.set_content(message.text)
        try:
            _, answer = await aiosmtplib.send(mail, **self._server)  # type: ignore[arg-type]
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = ", ".join(str(one.code) for one in error.recipients)
            return Outcome(state=EffectState.declined, cause="mail_refused", detail=f"the recipient was refused: {codes}")
        except aiosmtplib.SMTPResponseException as error:  # its own words may repeat the buyer's address: only the code
            if isinstance(error, aiosmtplib.SMTPAuthenticationError | aiosmtplib.SMTPConnectError):
                raise DependencyDown(f"the mail server cannot be used: {error.code}") from None
            return Outcome(state=EffectState.declined, cause="mail_refused", detail=f"the mail was refused: {error.code}")
        except (aiosmtplib.SMTPConnectError, ConnectionRefusedError) as error:
            raise DependencyDown(f"the mail server cannot be used: {error}") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise OutcomeUnknown(f"the mail server did not confirm: {error}") from error
        return Outcome(state=EffectState.succeeded, reference=answer[:120])
