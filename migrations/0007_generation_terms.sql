-- A publish writes a row for each different word. The foreign key looked the same generation up for each of them, which took
-- longer than all the rest; a publish now holds the generation's row once instead, and this removes what hung on a generation.
create function remove_generation_terms() returns trigger language plpgsql as $$
begin
    delete from generation_terms where generation_id = old.id;
    return null;
end
$$;

create trigger remove_generation_terms after delete on generations
    for each row execute function remove_generation_terms();

alter table generation_terms drop constraint generation_terms_generation_id_fkey;
