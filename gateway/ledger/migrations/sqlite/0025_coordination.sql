-- A database in a file serves one gateway, which shares its rate limits with none.
SELECT 1;
