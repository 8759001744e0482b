-- Sessions and their refresh tokens, signing keys, changes of address, and what administrators look for.

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device text NOT NULL,
    ip text,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    end_reason text,
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) WITH (fillfactor = 80);
COMMENT ON TABLE sessions IS 'A login on a device; its row says all about what its tokens are worth.';
CREATE INDEX sessions_user ON sessions (user_id, created_at) WHERE ended_at IS NULL;
CREATE INDEX sessions_device ON sessions (user_id, device);
CREATE INDEX sessions_over ON sessions (least(ended_at, expires_at));

CREATE TABLE refresh_tokens (
    hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    parent bytea,
    used_at timestamptz,
    expires_at timestamptz NOT NULL,
    kept_until timestamptz NOT NULL
);
COMMENT ON TABLE refresh_tokens IS 'A link in the chain of a session, by its SHA-256.';
COMMENT ON COLUMN refresh_tokens.kept_until IS 'When its session is over at the latest: until then, reuse shows.';
CREATE UNIQUE INDEX refresh_tokens_leaf ON refresh_tokens (session_id) WHERE used_at IS NULL;
CREATE UNIQUE INDEX refresh_tokens_parent ON refresh_tokens (parent) WHERE parent IS NOT NULL;
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_kept_until ON refresh_tokens (kept_until);

CREATE TABLE signing_keys (
    kid text PRIMARY KEY,
    algorithm text NOT NULL,
    public jsonb NOT NULL,
    sealed_private bytea NOT NULL,
    created_at timestamptz NOT NULL,
    not_before timestamptz NOT NULL,
    retired_at timestamptz
);
COMMENT ON TABLE signing_keys IS 'Keys of access tokens, the private part sealed; verifies until retired_at.';

CREATE TABLE email_changes (
    user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    email text NOT NULL,
    email_key text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE email_changes IS 'The address that a user wants to have, until its code is shown.';
CREATE INDEX email_changes_expires_at ON email_changes (expires_at);

ALTER TABLE addresses
ADD COLUMN verify_failures integer NOT NULL DEFAULT 0,
ADD COLUMN verify_failures_since timestamptz,
ADD COLUMN asked integer NOT NULL DEFAULT 0,
ADD COLUMN asked_since timestamptz,
ADD COLUMN asked_at timestamptz;
COMMENT ON COLUMN addresses.verify_failures IS 'Wrong codes without a password; a stranger can spend these.';

-- Who an administrator looks for: the beginning of an address, and pages in the order of ids, which are of version 7.
CREATE INDEX users_email_prefix ON users (email_key text_pattern_ops);
CREATE INDEX users_username_prefix ON users (username_key text_pattern_ops) WHERE username_key IS NOT NULL;
CREATE INDEX users_disabled ON users (id) WHERE disabled_at IS NOT NULL;
CREATE INDEX users_admins ON users (id) WHERE role = 'admin';
CREATE INDEX registrations_email_prefix ON registrations (email_key text_pattern_ops);
CREATE INDEX registrations_username_prefix ON registrations (username_key text_pattern_ops)
WHERE username_key IS NOT NULL;
CREATE INDEX events_name ON events (name, at);

-- Whether a session is good says its row, so nothing counts epochs.
ALTER TABLE users DROP COLUMN token_epoch;
