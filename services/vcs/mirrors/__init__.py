"""One bare repository a remote: fetched, repaired, kept whole for all who borrow from it."""
