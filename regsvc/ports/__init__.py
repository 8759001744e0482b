"""What the inside asks of the outside: Protocols, the values that cross them, and `Unavailable`.

Whoever implements a port raises `Unavailable` where the foreign library enters, and lets every other error through:
those are bugs. Times are aware and on the database's clock; `timedelta` wherever a duration leaves a function.
"""

from regsvc.ports.account import Accounts, Directory, MailState, MailStatus, News
from regsvc.ports.crypto import Access, Crypto, KeyShelf, Passwords, SigningKey, Tokens
from regsvc.ports.delivery import (
    BoxedMail,
    Dispatch,
    Imprint,
    Mailbag,
    Mailbox,
    MailDesk,
    MailRow,
    Minted,
    OutboxCounts,
    Reclaimed,
    Transport,
)
from regsvc.ports.operations import (
    EVERYTHING,
    Census,
    Heap,
    Housekeeping,
    Notice,
    NoticeKind,
    Notices,
    Partitioned,
    Probe,
    Swept,
)
from regsvc.ports.outage import Unavailable
from regsvc.ports.quota import Quotas
from regsvc.ports.receipt import Different, Finished, Receipts, Running, Seals, Slot, Ticket, Tickets
from regsvc.ports.session import Members, People, Sessions, Visit
from regsvc.ports.staff import Enrolment, Occurrence, Roster, StaffBegin, StaffUnit
from regsvc.ports.transfer import HashForms, Roll, Snapshot, Transfer
from regsvc.ports.unit import Begin, Outgoing, Unit

__all__ = [
    "EVERYTHING",
    "Access",
    "Accounts",
    "Begin",
    "BoxedMail",
    "Census",
    "Crypto",
    "Different",
    "Directory",
    "Dispatch",
    "Enrolment",
    "Finished",
    "HashForms",
    "Heap",
    "Housekeeping",
    "Imprint",
    "KeyShelf",
    "MailDesk",
    "MailRow",
    "MailState",
    "MailStatus",
    "Mailbag",
    "Mailbox",
    "Members",
    "Minted",
    "News",
    "Notice",
    "NoticeKind",
    "Notices",
    "Occurrence",
    "OutboxCounts",
    "Outgoing",
    "Partitioned",
    "Passwords",
    "People",
    "Probe",
    "Quotas",
    "Receipts",
    "Reclaimed",
    "Roll",
    "Roster",
    "Running",
    "Seals",
    "Sessions",
    "SigningKey",
    "Slot",
    "Snapshot",
    "StaffBegin",
    "StaffUnit",
    "Swept",
    "Ticket",
    "Tickets",
    "Tokens",
    "Transfer",
    "Transport",
    "Unavailable",
    "Unit",
    "Visit",
]
