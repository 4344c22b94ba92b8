-- The name of a model's index, so that one can be built beside another and swapped by renaming.
create function vector_index_name(model int) returns text language sql immutable
    return 'chunk_vectors_model_' || model;

-- The statement that builds a model's HNSW index: m links a node, ef_construction candidates while building.
create function hnsw_index_statement(model int, index_name text, m int, ef_construction int, concurrent boolean)
    returns text language sql stable
    return (
        select format(
            'create index %s %I on chunk_vectors using hnsw ((embedding::halfvec(%s)) halfvec_cosine_ops) '
            'with (m = %s, ef_construction = %s) where model_id = %s',
            case when concurrent then 'concurrently' else '' end, index_name, dimensions, m, ef_construction, id)
        from models where id = model
    );

-- The statement that builds a model's IVFFlat index. Its lists are centroids of the rows that exist while it is built: useless
-- on an empty table, and about rows / 1000 is a good number of them.
create function ivfflat_index_statement(model int, index_name text, lists int, concurrent boolean)
    returns text language sql stable
    return (
        select format(
            'create index %s %I on chunk_vectors using ivfflat ((embedding::halfvec(%s)) halfvec_cosine_ops) '
            'with (lists = %s) where model_id = %s',
            case when concurrent then 'concurrently' else '' end, index_name, dimensions, lists, id)
        from models where id = model
    );

-- Gives a new model its (empty) HNSW index.
create function create_vector_index(model int) returns void language plpgsql as $$
begin
    if to_regclass(vector_index_name(model)) is null then
        execute hnsw_index_statement(model, vector_index_name(model), 16, 64, false);
    end if;
end
$$;

select create_vector_index(id) from models order by id;
