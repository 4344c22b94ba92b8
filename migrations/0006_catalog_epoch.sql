-- Counts the changes of what search reads, in the order of their commits: a replica that holds the count of a change has seen it.
create table catalog_epoch (
    epoch integer not null
);

insert into catalog_epoch values (1);
