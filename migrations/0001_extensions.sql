-- Vectors, their sparse form and the index methods. 0.8 brought iterative scans, which filtered searches need.
create extension if not exists vector;

do $$
begin
    if (select string_to_array(split_part(extversion, '-', 1), '.')::int[] from pg_extension where extname = 'vector')
        < array[0, 8, 0] then
        raise exception 'pgvector 0.8.0 or newer is needed; run: alter extension vector update';
    end if;
end
$$;
