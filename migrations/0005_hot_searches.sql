-- The searches that were asked most lately, so that a process that starts can answer them from memory at once.
create table hot_searches (
    -- BLAKE3 of the question.
    id bytea primary key,
    question jsonb not null,
    -- How often it was found in a cache before it was last saved.
    hits bigint not null,
    seen_at timestamptz not null default now()
);

create index hot_searches_by_hits on hot_searches (hits desc);
create index hot_searches_by_age on hot_searches (seen_at);
