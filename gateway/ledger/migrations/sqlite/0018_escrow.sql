-- A database in a file serves one gateway, which shares its quotas and budgets with none.
SELECT 1;
