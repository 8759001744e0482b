"""Mail: letters, and the ways out for them; each way is a context manager with `send(dispatch) -> Outcome`."""

from regsvc.adapters.mail.console import Console
from regsvc.adapters.mail.letters import Letters
from regsvc.adapters.mail.line import Login, Tls
from regsvc.adapters.mail.mailbox import Both, Boxed, Channel
from regsvc.adapters.mail.smtp import Relay, Smtp, SmtpStatistics

__all__ = ["Both", "Boxed", "Channel", "Console", "Letters", "Login", "Relay", "Smtp", "SmtpStatistics", "Tls"]
