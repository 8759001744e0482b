"""Which statements may leave a session other than a fresh one: asked so that most releases need no reset.

asyncpg resets every connection that comes back to its pool, one round trip each time. What that undoes is changed by
few statements: SET, LISTEN, session advisory locks, cursors WITH HOLD, temporary tables. A statement is clean when its
first word is known to be harmless and none of those is named in it. What a function of one's own does inside is not
seen: a pool for such a database is opened with `reset="always"`.
"""

import re
from functools import lru_cache
from typing import Final

_HARMLESS: Final = re.compile(
    r"""\s*(?:
        SELECT | VALUES | TABLE | WITH | INSERT | UPDATE | DELETE | MERGE | COPY | NOTIFY | SHOW
      | BEGIN | START\s+TRANSACTION | COMMIT | END | ROLLBACK | ABORT | SAVEPOINT | RELEASE
      | SET\s+(?:LOCAL | TRANSACTION | CONSTRAINTS) | LOCK
      | CREATE\s+(?!.*\bTEMP) | ALTER\s+(?!SYSTEM) | DROP | TRUNCATE | COMMENT | GRANT | REVOKE | ANALYZE | VACUUM
    )\b""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_SUSPECT: Final = re.compile(
    r"set_config|advisory_lock|\bhold\b|pg_temp|\binto\s+(?:local\s+|global\s+)?temp",
    re.IGNORECASE,
)


@lru_cache(maxsize=2048)
def leaves_session_clean(query: str) -> bool:
    """Whether a session is as good as fresh after `query`, as far as its text tells; when in doubt, no."""
    # A semicolon inside quotes only makes more pieces: where a real statement begins, a piece does.
    pieces = [piece for piece in query.split(";") if piece and not piece.isspace()]
    return all(_HARMLESS.match(piece) for piece in pieces) and _SUSPECT.search(query) is None
