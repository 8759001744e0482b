"""Mail the way most would send it from a web application: a Celery task with Redis as its broker, and smtplib.

`celery -A benchmarks.peers.celery_mail worker`: PEER_BROKER says where Redis is, PEER_RELAY the relay's port here. Like
ours it acknowledges a mail once the relay has it, and tries again when the relay is away.
"""

import os
import smtplib
from email.message import EmailMessage

from celery import Celery

app = Celery("mail", broker=os.environ.get("PEER_BROKER", "redis://127.0.0.1:6379/0"))


def _send_letter(to: str, text: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "no-reply@example.org", to, "Your code"
    message.set_content(text)
    with smtplib.SMTP("127.0.0.1", int(os.environ["PEER_RELAY"]), timeout=10) as relay:
        relay.send_message(message)


send_letter = app.task(
    name="send_letter",
    acks_late=True,
    ignore_result=True,
    autoretry_for=(OSError, smtplib.SMTPException),
    retry_backoff=True,
)(_send_letter)
