-- Who may ask: only a hash of each secret, which is shown once when it is made. 256 random bits cannot be guessed, so a fast
-- hash is enough. Rows stay when a key is revoked: the list tells what there was, and a server that had keys never opens
-- again because the last one went.
create table api_keys (
    id bigint generated always as identity primary key,
    name text not null,
    -- blake3 of the whole secret.
    hash bytea not null unique check (octet_length(hash) = 32),
    -- The secret's first characters, by which people tell their keys apart.
    hint text not null,
    scopes text[] not null,
    -- Names or patterns of sources; null means all.
    sources text[] check (cardinality(sources) > 0),
    requests_per_minute int check (requests_per_minute > 0),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
