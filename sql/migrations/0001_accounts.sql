-- Addresses, registrations, users, codes, the outbox and the audit trail.

CREATE TABLE addresses (
    email_key text PRIMARY KEY,
    failures integer NOT NULL DEFAULT 0,
    failures_since timestamptz,
    mails integer NOT NULL DEFAULT 0,
    mails_since timestamptz,
    mailed_at timestamptz,
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70); -- every lock rewrites the row: room on its page keeps that away from the indices
COMMENT ON TABLE addresses IS 'An address being proved now; its row lock serialises register, resend and activate.';
CREATE INDEX addresses_touched_at ON addresses (touched_at);

CREATE TABLE registrations (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    email_key text NOT NULL,
    username text,
    username_key text,
    locale text,
    password_hash text NOT NULL,
    client text,
    created_at timestamptz NOT NULL,
    live_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE registrations IS 'A claim to an address that nobody has proved yet.';
CREATE INDEX registrations_email_key ON registrations (email_key);
CREATE INDEX registrations_expires_at ON registrations (expires_at);

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    email_key text NOT NULL,
    username text,
    username_key text,
    locale text,
    password_hash text NOT NULL,
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    disabled_at timestamptz,
    token_epoch integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    activated_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
COMMENT ON TABLE users IS 'An account: an address that was proved.';
CREATE UNIQUE INDEX users_email_key ON users (email_key);
CREATE UNIQUE INDEX users_username_key ON users (username_key);

CREATE TABLE codes (
    subject_id uuid NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('activate', 'verify', 'reset', 'change_email')),
    mac bytea NOT NULL,
    minted_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    used_at timestamptz,
    PRIMARY KEY (subject_id, purpose)
);
COMMENT ON TABLE codes IS 'The one live code of a subject and purpose, as a MAC; minting replaces.';
CREATE INDEX codes_expires_at ON codes (expires_at);

CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('mail', 'event')),
    topic text NOT NULL,
    subject_id uuid NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}',
    trace text,
    state text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased', 'sent', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL,
    not_after timestamptz NOT NULL,
    leased_at timestamptz,
    lease_until timestamptz,
    last_error text,
    created_at timestamptz NOT NULL,
    sent_at timestamptz,
    CHECK ((state = 'leased') = (lease_until IS NOT NULL)),
    CHECK ((state = 'sent') = (sent_at IS NOT NULL))
);
COMMENT ON TABLE outbox IS 'What must leave the service, written in the transaction that caused it; holds no secret.';
CREATE INDEX outbox_ready ON outbox (kind, not_before) WHERE state = 'ready';
CREATE INDEX outbox_leased ON outbox (lease_until) WHERE state = 'leased';
CREATE INDEX outbox_dead ON outbox (created_at) WHERE state = 'dead';
CREATE INDEX outbox_sent_at ON outbox (sent_at) WHERE state = 'sent';
CREATE INDEX outbox_subject ON outbox (subject_id);

CREATE TABLE events (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    name text NOT NULL,
    actor uuid,
    subject_id uuid,
    ip text,
    data jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (at, id)
) PARTITION BY RANGE (at);
COMMENT ON TABLE events IS 'What happened, append-only: the audit trail.';
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE INDEX events_subject ON events (subject_id, at);
