-- The text of one file or address.
create table pages (
    id bigint generated always as identity primary key,
    version_id bigint not null references versions (id) on delete cascade,
    born bigint not null,
    died bigint not null default 9223372036854775807,
    path text not null,
    url text not null,
    title text not null,
    -- Of everything that decides the page's chunks and vectors, so that an unchanged page is recognised.
    content_hash bytea not null,
    content text not null,
    content_type text not null,
    words int not null,
    metadata jsonb not null default '{}',
    created_at timestamptz not null default now()
);

create unique index pages_by_path on pages (version_id, path, born);
create index pages_by_url on pages (url);
create index pages_by_death on pages (version_id, died) where died < 9223372036854775807;

-- A passage of a page: what a search returns.
create table chunks (
    id bigint generated always as identity primary key,
    page_id bigint not null references pages (id) on delete cascade,
    version_id bigint not null,
    born bigint not null,
    died bigint not null default 9223372036854775807,
    number int not null,
    section text[] not null,
    content text not null,
    language text,
    tokens int not null,
    hash bytea not null,
    unique (page_id, number)
);

create index chunks_by_hash on chunks (version_id, hash);

-- A chunk's vector, apart from its text so that a scan reads only what it compares. The column has no size: each model has
-- an index of its own, on the column cast to that model's size.
create table chunk_vectors (
    chunk_id bigint primary key references chunks (id) on delete cascade,
    version_id bigint not null,
    born bigint not null,
    died bigint not null default 9223372036854775807,
    model_id int not null references models (id),
    embedding halfvec not null
);

-- Inline, uncompressed: a query reads the vectors of its hits, and fetching each from the side would double the time.
alter table chunk_vectors alter column embedding set storage plain;
create index chunk_vectors_by_version on chunk_vectors (version_id);

-- A chunk's words. `terms` finds candidates, `weights` scores them: for each term (a hash of it) the saturated frequency
-- of BM25, so that the inner product with a query's inverse document frequencies is the score.
create table chunk_words (
    chunk_id bigint primary key references chunks (id) on delete cascade,
    version_id bigint not null,
    born bigint not null,
    died bigint not null default 9223372036854775807,
    terms int[] not null,
    weights sparsevec not null
);

alter table chunk_words alter column weights set storage plain;
alter table chunk_words alter column terms set storage plain;
-- Without the pending list, whose linear scan would slow every search that meets an import.
create index chunk_words_by_term on chunk_words using gin (terms) with (fastupdate = off);

-- A fenced block of code with the words that introduce it.
create table code_examples (
    id bigint generated always as identity primary key,
    chunk_id bigint not null references chunks (id) on delete cascade,
    version_id bigint not null,
    born bigint not null,
    died bigint not null default 9223372036854775807,
    language text,
    code text not null,
    context text not null
);

create index code_examples_by_chunk on code_examples (chunk_id);
