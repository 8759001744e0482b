-- The development mailbox: empty in production. In the database, so that every process shows the same one.

CREATE TABLE mailbox (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    sender text NOT NULL,
    recipient text NOT NULL,
    subject text NOT NULL,
    body_text text NOT NULL,
    body_html text NOT NULL,
    raw bytea NOT NULL
);
CREATE INDEX mailbox_recipient ON mailbox (lower(recipient), id);
