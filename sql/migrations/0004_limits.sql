-- Rate limits, first answers to idempotency keys, and the link in an activation mail.

CREATE UNLOGGED TABLE rate_limits (
    bucket text PRIMARY KEY,
    whole_at bigint NOT NULL,
    asked_at bigint NOT NULL,
    allowed boolean NOT NULL
) WITH (fillfactor = 50); -- each take rewrites its row: room on the page keeps that away from the index
COMMENT ON TABLE rate_limits IS 'Buckets (GCRA): when each is whole again. Times are microseconds since 1970.';
COMMENT ON COLUMN rate_limits.asked_at IS 'The clock by which the last take was decided, read under the row''s lock.';
COMMENT ON COLUMN rate_limits.allowed IS 'Whether the last take was.';

CREATE TABLE idempotency_keys (
    slot bytea PRIMARY KEY,
    body_mac bytea NOT NULL,
    holder uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    strangers smallint NOT NULL DEFAULT 0,
    answer bytea,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE idempotency_keys IS 'First answers to requests with an Idempotency-Key; without one: under way.';
COMMENT ON COLUMN idempotency_keys.slot IS 'A keyed digest of the route, the credentials that were shown, and the key.';
COMMENT ON COLUMN idempotency_keys.body_mac IS 'A keyed digest of the key and the body: some bodies hold passwords.';
COMMENT ON COLUMN idempotency_keys.strangers IS 'How often the key came with another body; at last it is burnt.';
COMMENT ON COLUMN idempotency_keys.answer IS 'Sealed by the secret, the key and the body: some answers hold tokens.';
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

ALTER TABLE codes DROP CONSTRAINT codes_purpose_check;
ALTER TABLE codes ADD CONSTRAINT codes_purpose_check
CHECK (purpose IN ('activate', 'link', 'verify', 'reset', 'change_email'));
