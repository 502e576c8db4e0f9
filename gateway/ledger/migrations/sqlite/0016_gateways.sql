-- A database in a file serves one gateway, which needs no list of gateways.
SELECT 1;
