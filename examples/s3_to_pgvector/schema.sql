-- The table that the function writes to, and a role restricted to it: psql "$DATABASE_URL" -f schema.sql

create extension if not exists vector;

create table documents (
    id uuid primary key,     -- derived from document, chunk and model, so that writes are idempotent
    document_id text,        -- s3://BUCKET/KEY of a text file, or the id of a line or row
    chunk int,               -- position of the chunk in the document, from 0
    text text,
    "start" int,             -- offsets of the chunk in the document, in characters
    "end" int,
    model text,
    metadata jsonb,
    vector vector(384)       -- dimensions of all-MiniLM-L6-v2; adjust to your model
);

-- To load many documents, create this index afterwards, which is many times faster.
create index on documents using hnsw (vector vector_cosine_ops);

create role tealight login;  -- its password must equal the one in the secret
grant select, insert, update on documents to tealight;
