-- The table that the function writes to, and a role that may do nothing else: psql "$DATABASE_URL" -f schema.sql

create extension if not exists vector;

create table documents (
    id uuid primary key,     -- of document, chunk and model, so that writing it again overwrites
    document_id text,        -- s3://BUCKET/KEY of a text, the id of a line or row
    chunk int,               -- which part of the document, from 0
    text text,
    "start" int,             -- where in the document, in characters
    "end" int,
    model text,
    metadata jsonb,
    vector vector(384)       -- all-MiniLM-L6-v2's; another model may have others
);

-- Of many documents, load them first and make this afterwards: that is many times as fast.
create index on documents using hnsw (vector vector_cosine_ops);

create role tealight login;  -- \password tealight gives it the password that the secret has
grant select, insert, update on documents to tealight;
