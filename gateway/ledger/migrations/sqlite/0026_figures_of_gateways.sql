-- A database in a file serves one gateway, which tells its figures to none.
SELECT 1;
